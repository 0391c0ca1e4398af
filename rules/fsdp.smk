rule measure_fsdp:
    input:
        needs("fsdp"),
    output:
        update(
            "<results>/fsdp/source~{source},size~{size},variant~{variant},context~{context},batch~{batch},ranks~{ranks},compute_dtype~{compute_dtype},prefetch~{prefetch},optimizer~{optimizer},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/fsdp/source~{source},size~{size},variant~{variant},context~{context},batch~{batch},ranks~{ranks},compute_dtype~{compute_dtype},prefetch~{prefetch},optimizer~{optimizer},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule tabulate_fsdp:
    input:
        records("fsdp"),
        records("optimizer_sharding"),
        rendered("tables", "fsdp"),
    output:
        multiext("<results>/tables/fsdp/memory", ".csv", ".md"),
        multiext("<results>/tables/fsdp/time", ".csv", ".md"),
        multiext("<results>/tables/fsdp/beside", ".csv", ".md"),
    log:
        "<results>/logs/tables/fsdp.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/tabulate.py"


rule plot_fsdp:
    input:
        rules.tabulate_fsdp.output,
        rendered("figures", "fsdp"),
    output:
        report(
            "<results>/figures/fsdp/memory.svg",
            caption="../report/captions/fsdp.rst",
            category="fsdp",
        ),
        "<results>/figures/fsdp/memory.png",
        report(
            "<results>/figures/fsdp/lanes.svg",
            caption="../report/captions/fsdp.rst",
            category="fsdp",
        ),
        "<results>/figures/fsdp/lanes.png",
    log:
        "<results>/logs/figures/fsdp.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule fsdp:
    input:
        rules.tabulate_fsdp.output,
        rules.plot_fsdp.output,
