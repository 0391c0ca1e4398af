rule measure_ceilings:
    input:
        needs("ceilings"),
    output:
        update(
            "<results>/ceilings/operation~{operation},dtype~{dtype},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/ceilings/operation~{operation},dtype~{dtype},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule tabulate_ceilings:
    input:
        records("ceilings"),
        rendered("tables", "ceilings"),
    output:
        multiext("<results>/tables/ceilings/peaks", ".csv", ".md"),
        multiext("<results>/tables/ceilings/rates", ".csv", ".md"),
    log:
        "<results>/logs/tables/ceilings.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/tabulate.py"


rule plot_ceilings:
    input:
        rules.tabulate_ceilings.output,
        rendered("figures", "ceilings"),
    output:
        report(
            "<results>/figures/ceilings/roofline.svg",
            caption="../report/captions/ceilings.rst",
            category="ceilings",
        ),
        "<results>/figures/ceilings/roofline.png",
    log:
        "<results>/logs/figures/ceilings.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule ceilings:
    input:
        rules.tabulate_ceilings.output,
        rules.plot_ceilings.output,
