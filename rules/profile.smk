rule measure_profile:
    input:
        needs("profile"),
    output:
        update(
            "<results>/profile/size~{size},context~{context},batch~{batch},precision~{precision},implementation~{implementation},passes~{passes},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/profile/size~{size},context~{context},batch~{batch},precision~{precision},implementation~{implementation},passes~{passes},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_profile:
    input:
        records("profile"),
        rendered("profile"),
    output:
        rendered_files("profile"),
    log:
        "<results>/logs/rendered/profile.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule profile:
    input:
        rules.render_profile.output,
