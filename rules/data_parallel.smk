rule measure_data_parallel:
    input:
        needs("data_parallel"),
    output:
        update(
            "<results>/data_parallel/size~{size},strategy~{strategy},context~{context},batch~{batch},bucket_mib~{bucket_mib},ranks~{ranks},precision~{precision},optimizer~{optimizer},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/data_parallel/size~{size},strategy~{strategy},context~{context},batch~{batch},bucket_mib~{bucket_mib},ranks~{ranks},precision~{precision},optimizer~{optimizer},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule tabulate_data_parallel:
    input:
        records("data_parallel"),
        records("collectives"),
        records("optimizer_sharding"),
        records("fsdp"),
        rendered("tables", "data_parallel"),
    output:
        multiext("<results>/tables/data_parallel/strategies", ".csv", ".md"),
        multiext("<results>/tables/data_parallel/buckets", ".csv", ".md"),
        multiext("<results>/tables/data_parallel/beside", ".csv", ".md"),
        multiext("<results>/tables/data_parallel/projection", ".csv", ".md"),
    log:
        "<results>/logs/tables/data_parallel.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/tabulate.py"


rule plot_data_parallel:
    input:
        rules.tabulate_data_parallel.output,
        rendered("figures", "data_parallel"),
    output:
        report(
            "<results>/figures/data_parallel/exposed.svg",
            caption="../report/captions/data_parallel.rst",
            category="data_parallel",
        ),
        "<results>/figures/data_parallel/exposed.png",
        report(
            "<results>/figures/data_parallel/lanes.svg",
            caption="../report/captions/data_parallel.rst",
            category="data_parallel",
        ),
        "<results>/figures/data_parallel/lanes.png",
        report(
            "<results>/figures/data_parallel/projection.svg",
            caption="../report/captions/data_parallel.rst",
            category="data_parallel",
        ),
        "<results>/figures/data_parallel/projection.png",
    log:
        "<results>/logs/figures/data_parallel.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule data_parallel:
    input:
        rules.tabulate_data_parallel.output,
        rules.plot_data_parallel.output,
