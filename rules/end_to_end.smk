rule measure_end_to_end:
    input:
        needs("end_to_end"),
    output:
        update(
            "<results>/end_to_end/size~{size},context~{context},batch~{batch},precision~{precision},implementation~{implementation},attention~{attention},passes~{passes},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/end_to_end/size~{size},context~{context},batch~{batch},precision~{precision},implementation~{implementation},attention~{attention},passes~{passes},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule tabulate_end_to_end:
    input:
        records("end_to_end"),
        records("ceilings"),
        rendered("tables", "end_to_end"),
    output:
        multiext("<results>/tables/end_to_end/by_size", ".csv", ".md"),
        multiext("<results>/tables/end_to_end/by_context", ".csv", ".md"),
        multiext("<results>/tables/end_to_end/passes", ".csv", ".md"),
        multiext("<results>/tables/end_to_end/precision", ".csv", ".md"),
        multiext("<results>/tables/end_to_end/compile", ".csv", ".md"),
        multiext("<results>/tables/end_to_end/attention", ".csv", ".md"),
        multiext("<results>/tables/end_to_end/every_cell", ".csv", ".md"),
    log:
        "<results>/logs/tables/end_to_end.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/tabulate.py"


rule plot_end_to_end:
    input:
        rules.tabulate_end_to_end.output,
        rendered("figures", "end_to_end"),
    output:
        report(
            "<results>/figures/end_to_end/phases.svg",
            caption="../report/captions/end_to_end.rst",
            category="end_to_end",
        ),
        "<results>/figures/end_to_end/phases.png",
        report(
            "<results>/figures/end_to_end/context.svg",
            caption="../report/captions/end_to_end.rst",
            category="end_to_end",
        ),
        "<results>/figures/end_to_end/context.png",
        report(
            "<results>/figures/end_to_end/speedups.svg",
            caption="../report/captions/end_to_end.rst",
            category="end_to_end",
        ),
        "<results>/figures/end_to_end/speedups.png",
        report(
            "<results>/figures/end_to_end/roofline.svg",
            caption="../report/captions/end_to_end.rst",
            category="end_to_end",
        ),
        "<results>/figures/end_to_end/roofline.png",
    log:
        "<results>/logs/figures/end_to_end.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule end_to_end:
    input:
        rules.tabulate_end_to_end.output,
        rules.plot_end_to_end.output,
