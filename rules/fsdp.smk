rule measure_fsdp:
    input:
        needs("fsdp"),
    output:
        update(
            "results/{machine}/fsdp/source~{source},size~{size},variant~{variant},context~{context},batch~{batch},ranks~{ranks},compute_dtype~{compute_dtype},prefetch~{prefetch},optimizer~{optimizer},replicate~{replicate}.json"
        ),
    log:
        "results/{machine}/logs/fsdp/source~{source},size~{size},variant~{variant},context~{context},batch~{batch},ranks~{ranks},compute_dtype~{compute_dtype},prefetch~{prefetch},optimizer~{optimizer},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    script:
        "../workflow_scripts/measure.py"


rule tabulate_fsdp:
    input:
        records("fsdp"),
        records("optimizer_sharding"),
        rendered("tables", "fsdp"),
    output:
        multiext("results/{machine}/tables/fsdp/memory", ".csv", ".md"),
        multiext("results/{machine}/tables/fsdp/time", ".csv", ".md"),
        multiext("results/{machine}/tables/fsdp/beside", ".csv", ".md"),
    log:
        "results/{machine}/logs/tables/fsdp.log",
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
            "results/{machine}/figures/fsdp/memory.svg",
            caption="../report/captions/fsdp.rst",
            category="fsdp",
        ),
        "results/{machine}/figures/fsdp/memory.png",
        report(
            "results/{machine}/figures/fsdp/lanes.svg",
            caption="../report/captions/fsdp.rst",
            category="fsdp",
        ),
        "results/{machine}/figures/fsdp/lanes.png",
    log:
        "results/{machine}/logs/figures/fsdp.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule fsdp:
    input:
        expand(rules.tabulate_fsdp.output, machine=MACHINE),
        expand(rules.plot_fsdp.output, machine=MACHINE),
