rule measure_encoder_decoder:
    input:
        needs("encoder_decoder"),
    output:
        update(
            "<results>/encoder_decoder/preset~{preset},data~{data},megabytes~{megabytes},ranks~{ranks},batch~{batch},context~{context},steps~{steps},precision~{precision},attention~{attention},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/encoder_decoder/preset~{preset},data~{data},megabytes~{megabytes},ranks~{ranks},batch~{batch},context~{context},steps~{steps},precision~{precision},attention~{attention},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule tabulate_encoder_decoder:
    input:
        records("encoder_decoder"),
        rendered("tables", "encoder_decoder"),
    output:
        multiext("<results>/tables/encoder_decoder/summary", ".csv", ".md"),
        multiext("<results>/tables/encoder_decoder/epochs", ".csv", ".md"),
        multiext("<results>/tables/encoder_decoder/disk", ".csv", ".md"),
        multiext("<results>/tables/encoder_decoder/scaling", ".csv", ".md"),
    log:
        "<results>/logs/tables/encoder_decoder.log",
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
            "<results>/figures/encoder_decoder/throughput.svg",
            caption="../report/captions/encoder_decoder.rst",
            category="encoder_decoder",
        ),
        "<results>/figures/encoder_decoder/throughput.png",
    log:
        "<results>/logs/figures/encoder_decoder.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule encoder_decoder:
    input:
        rules.tabulate_encoder_decoder.output,
        rules.plot_encoder_decoder.output,
