rule measure_optimizer_sharding:
    input:
        needs("optimizer_sharding"),
    output:
        update(
            "<results>/optimizer_sharding/source~{source},size~{size},variant~{variant},context~{context},batch~{batch},ranks~{ranks},precision~{precision},parameter_dtype~{parameter_dtype},optimizer~{optimizer},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/optimizer_sharding/source~{source},size~{size},variant~{variant},context~{context},batch~{batch},ranks~{ranks},precision~{precision},parameter_dtype~{parameter_dtype},optimizer~{optimizer},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule tabulate_optimizer_sharding:
    input:
        records("optimizer_sharding"),
        rendered("tables", "optimizer_sharding"),
    output:
        multiext("<results>/tables/optimizer_sharding/memory", ".csv", ".md"),
        multiext("<results>/tables/optimizer_sharding/time", ".csv", ".md"),
        multiext("<results>/tables/optimizer_sharding/beside", ".csv", ".md"),
    log:
        "<results>/logs/tables/optimizer_sharding.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/tabulate.py"


rule plot_optimizer_sharding:
    input:
        rules.tabulate_optimizer_sharding.output,
        rendered("figures", "optimizer_sharding"),
    output:
        report(
            "<results>/figures/optimizer_sharding/memory.svg",
            caption="../report/captions/optimizer_sharding.rst",
            category="optimizer_sharding",
        ),
        "<results>/figures/optimizer_sharding/memory.png",
        report(
            "<results>/figures/optimizer_sharding/lanes.svg",
            caption="../report/captions/optimizer_sharding.rst",
            category="optimizer_sharding",
        ),
        "<results>/figures/optimizer_sharding/lanes.png",
    log:
        "<results>/logs/figures/optimizer_sharding.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule optimizer_sharding:
    input:
        rules.tabulate_optimizer_sharding.output,
        rules.plot_optimizer_sharding.output,
