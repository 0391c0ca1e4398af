rule measure_warmup:
    input:
        needs("warmup"),
    output:
        update(
            "<results>/warmup/size~{size},warmup~{warmup},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/warmup/size~{size},warmup~{warmup},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule tabulate_warmup:
    input:
        records("warmup"),
        rendered("tables", "warmup"),
    output:
        multiext("<results>/tables/warmup/warmup", ".csv", ".md"),
    log:
        "<results>/logs/tables/warmup.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/tabulate.py"


rule plot_warmup:
    input:
        rules.tabulate_warmup.output,
        rendered("figures", "warmup"),
    output:
        report(
            "<results>/figures/warmup/warmup.svg",
            caption="../report/captions/warmup.rst",
            category="warmup",
        ),
        "<results>/figures/warmup/warmup.png",
    log:
        "<results>/logs/figures/warmup.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule warmup:
    input:
        rules.tabulate_warmup.output,
        rules.plot_warmup.output,
