rule measure_checkpointing:
    input:
        needs("checkpointing"),
    output:
        update(
            "results/{machine}/checkpointing/size~{size},context~{context},batch~{batch},precision~{precision},blocks_per_checkpoint~{blocks_per_checkpoint},nested~{nested},replicate~{replicate}.json"
        ),
    log:
        "results/{machine}/logs/checkpointing/size~{size},context~{context},batch~{batch},precision~{precision},blocks_per_checkpoint~{blocks_per_checkpoint},nested~{nested},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    script:
        "../workflow_scripts/measure.py"


rule tabulate_checkpointing:
    input:
        records("checkpointing"),
        rendered("tables", "checkpointing"),
    output:
        multiext("results/{machine}/tables/checkpointing/groups", ".csv", ".md"),
        multiext("results/{machine}/tables/checkpointing/saved", ".csv", ".md"),
    log:
        "results/{machine}/logs/tables/checkpointing.log",
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
            "results/{machine}/figures/checkpointing/tradeoff.svg",
            caption="../report/captions/checkpointing.rst",
            category="checkpointing",
        ),
        "results/{machine}/figures/checkpointing/tradeoff.png",
        report(
            "results/{machine}/figures/checkpointing/saved.svg",
            caption="../report/captions/checkpointing.rst",
            category="checkpointing",
        ),
        "results/{machine}/figures/checkpointing/saved.png",
    log:
        "results/{machine}/logs/figures/checkpointing.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule checkpointing:
    input:
        expand(rules.tabulate_checkpointing.output, machine=MACHINE),
        expand(rules.plot_checkpointing.output, machine=MACHINE),
