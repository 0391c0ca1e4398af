rule measure_checkpointing:
    input:
        needs("checkpointing"),
    output:
        update(
            "<results>/checkpointing/size~{size},context~{context},batch~{batch},precision~{precision},blocks_per_checkpoint~{blocks_per_checkpoint},nested~{nested},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/checkpointing/size~{size},context~{context},batch~{batch},precision~{precision},blocks_per_checkpoint~{blocks_per_checkpoint},nested~{nested},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule tabulate_checkpointing:
    input:
        records("checkpointing"),
        rendered("tables", "checkpointing"),
    output:
        multiext("<results>/tables/checkpointing/groups", ".csv", ".md"),
        multiext("<results>/tables/checkpointing/saved", ".csv", ".md"),
    log:
        "<results>/logs/tables/checkpointing.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/tabulate.py"


rule plot_checkpointing:
    input:
        rules.tabulate_checkpointing.output,
        rendered("figures", "checkpointing"),
    output:
        report(
            "<results>/figures/checkpointing/tradeoff.svg",
            caption="../report/captions/checkpointing.rst",
            category="checkpointing",
        ),
        "<results>/figures/checkpointing/tradeoff.png",
        report(
            "<results>/figures/checkpointing/saved.svg",
            caption="../report/captions/checkpointing.rst",
            category="checkpointing",
        ),
        "<results>/figures/checkpointing/saved.png",
    log:
        "<results>/logs/figures/checkpointing.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule checkpointing:
    input:
        rules.tabulate_checkpointing.output,
        rules.plot_checkpointing.output,
