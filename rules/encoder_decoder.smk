rule measure_encoder_decoder:
    input:
        needs("encoder_decoder"),
    output:
        update(
            "<results>/encoder_decoder/preset~{preset},data~{data},megabytes~{megabytes},ranks~{ranks},nodes~{nodes},batch~{batch},context~{context},steps~{steps},precision~{precision},attention~{attention},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/encoder_decoder/preset~{preset},data~{data},megabytes~{megabytes},ranks~{ranks},nodes~{nodes},batch~{batch},context~{context},steps~{steps},precision~{precision},attention~{attention},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
        nodes=nodes,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_encoder_decoder:
    input:
        records("encoder_decoder"),
        rendered("encoder_decoder"),
    output:
        rendered_files("encoder_decoder"),
    log:
        "<results>/logs/rendered/encoder_decoder.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule encoder_decoder:
    input:
        rules.render_encoder_decoder.output,
