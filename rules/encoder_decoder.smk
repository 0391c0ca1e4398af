rule measure_encoder_decoder:
    input:
        needs("encoder_decoder"),
    output:
        update(
            "results/{machine}/encoder_decoder/preset~{preset},data~{data},megabytes~{megabytes},ranks~{ranks},batch~{batch},context~{context},steps~{steps},precision~{precision},attention~{attention},replicate~{replicate}.json"
        ),
    log:
        "results/{machine}/logs/encoder_decoder/preset~{preset},data~{data},megabytes~{megabytes},ranks~{ranks},batch~{batch},context~{context},steps~{steps},precision~{precision},attention~{attention},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    script:
        "../workflow_scripts/measure.py"


rule tabulate_encoder_decoder:
    input:
        records("encoder_decoder"),
        rendered("tables", "encoder_decoder"),
    output:
        multiext("results/{machine}/tables/encoder_decoder/summary", ".csv", ".md"),
        multiext("results/{machine}/tables/encoder_decoder/epochs", ".csv", ".md"),
        multiext("results/{machine}/tables/encoder_decoder/disk", ".csv", ".md"),
        multiext("results/{machine}/tables/encoder_decoder/scaling", ".csv", ".md"),
    log:
        "results/{machine}/logs/tables/encoder_decoder.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/tabulate.py"


rule plot_encoder_decoder:
    input:
        rules.tabulate_encoder_decoder.output,
        rendered("figures", "encoder_decoder"),
    output:
        report(
            "results/{machine}/figures/encoder_decoder/throughput.svg",
            caption="../report/captions/encoder_decoder.rst",
            category="encoder_decoder",
        ),
        "results/{machine}/figures/encoder_decoder/throughput.png",
    log:
        "results/{machine}/logs/figures/encoder_decoder.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule encoder_decoder:
    input:
        expand(rules.tabulate_encoder_decoder.output, machine=MACHINE),
        expand(rules.plot_encoder_decoder.output, machine=MACHINE),
