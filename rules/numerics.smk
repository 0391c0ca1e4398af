rule measure_numerics:
    input:
        needs("numerics"),
    output:
        update("results/{machine}/numerics/case~{case}.json"),
    log:
        "results/{machine}/logs/numerics/case~{case}.log",
    priority: priority_of_round
    resources:
        machine=1,
    script:
        "../workflow_scripts/measure.py"


rule tabulate_numerics:
    input:
        records("numerics"),
        rendered("tables", "numerics"),
    output:
        multiext("results/{machine}/tables/numerics/accumulation", ".csv", ".md"),
        multiext("results/{machine}/tables/numerics/autocast", ".csv", ".md"),
    log:
        "results/{machine}/logs/tables/numerics.log",
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
            "results/{machine}/figures/numerics/accumulation.svg",
            caption="../report/captions/numerics.rst",
            category="numerics",
        ),
        "results/{machine}/figures/numerics/accumulation.png",
    log:
        "results/{machine}/logs/figures/numerics.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule numerics:
    input:
        expand(rules.tabulate_numerics.output, machine=MACHINE),
        expand(rules.plot_numerics.output, machine=MACHINE),
