rule measure_numerics:
    input:
        needs("numerics"),
    output:
        update("<results>/numerics/case~{case}.json"),
    log:
        "<results>/logs/numerics/case~{case}.log",
    priority: priority_of_round
    resources:
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule tabulate_numerics:
    input:
        records("numerics"),
        rendered("tables", "numerics"),
    output:
        multiext("<results>/tables/numerics/accumulation", ".csv", ".md"),
        multiext("<results>/tables/numerics/autocast", ".csv", ".md"),
    log:
        "<results>/logs/tables/numerics.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/tabulate.py"


rule plot_numerics:
    input:
        rules.tabulate_numerics.output,
        rendered("figures", "numerics"),
    output:
        report(
            "<results>/figures/numerics/accumulation.svg",
            caption="../report/captions/numerics.rst",
            category="numerics",
        ),
        "<results>/figures/numerics/accumulation.png",
    log:
        "<results>/logs/figures/numerics.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule numerics:
    input:
        rules.tabulate_numerics.output,
        rules.plot_numerics.output,
