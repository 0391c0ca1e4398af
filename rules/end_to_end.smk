rule measure_end_to_end:
    input:
        needs("end_to_end"),
    output:
        update(
            "<results>/end_to_end/size~{size},context~{context},batch~{batch},precision~{precision},parameter_dtype~{parameter_dtype},implementation~{implementation},attention~{attention},head~{head},groups~{groups},optimizer~{optimizer},passes~{passes},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/end_to_end/size~{size},context~{context},batch~{batch},precision~{precision},parameter_dtype~{parameter_dtype},implementation~{implementation},attention~{attention},head~{head},groups~{groups},optimizer~{optimizer},passes~{passes},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_end_to_end:
    input:
        records("end_to_end"),
        rendered("end_to_end"),
    output:
        rendered_files("end_to_end"),
    log:
        "<results>/logs/rendered/end_to_end.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule end_to_end:
    input:
        rules.render_end_to_end.output,
