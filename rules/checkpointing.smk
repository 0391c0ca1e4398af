rule measure_checkpointing:
    input:
        needs("checkpointing"),
    output:
        update(
            "<results>/checkpointing/source~{source},size~{size},context~{context},batch~{batch},precision~{precision},parameter_dtype~{parameter_dtype},attention~{attention},head~{head},groups~{groups},optimizer~{optimizer},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/checkpointing/source~{source},size~{size},context~{context},batch~{batch},precision~{precision},parameter_dtype~{parameter_dtype},attention~{attention},head~{head},groups~{groups},optimizer~{optimizer},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_checkpointing:
    input:
        records("checkpointing"),
        rendered("checkpointing"),
    output:
        rendered_files("checkpointing"),
    log:
        "<results>/logs/rendered/checkpointing.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule checkpointing:
    input:
        rules.render_checkpointing.output,
