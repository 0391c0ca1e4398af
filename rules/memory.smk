rule measure_memory:
    input:
        needs("memory"),
    output:
        update(
            "<results>/memory/source~{source},size~{size},context~{context},batch~{batch},precision~{precision},parameter_dtype~{parameter_dtype},passes~{passes},optimizer~{optimizer}.json"
        ),
    log:
        "<results>/logs/memory/source~{source},size~{size},context~{context},batch~{batch},precision~{precision},parameter_dtype~{parameter_dtype},passes~{passes},optimizer~{optimizer}.log",
    priority: priority_of_round
    resources:
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule tabulate_memory:
    input:
        records("memory"),
        rendered("tables", "memory"),
    output:
        multiext("<results>/tables/memory/peaks", ".csv", ".md"),
        multiext("<results>/tables/memory/phases", ".csv", ".md"),
    log:
        "<results>/logs/tables/memory.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/tabulate.py"


rule plot_memory:
    input:
        rules.tabulate_memory.output,
        rendered("figures", "memory"),
    output:
        report(
            "<results>/figures/memory/timeline.svg",
            caption="../report/captions/memory.rst",
            category="memory",
        ),
        "<results>/figures/memory/timeline.png",
        report(
            "<results>/figures/memory/sizes.svg",
            caption="../report/captions/memory.rst",
            category="memory",
        ),
        "<results>/figures/memory/sizes.png",
        report(
            "<results>/figures/memory/context.svg",
            caption="../report/captions/memory.rst",
            category="memory",
        ),
        "<results>/figures/memory/context.png",
    log:
        "<results>/logs/figures/memory.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule memory:
    input:
        rules.tabulate_memory.output,
        rules.plot_memory.output,
