rule measure_ladder:
    input:
        needs("ladder"),
    output:
        update(
            "<results>/ladder/size~{size},context~{context},rung~{rung},batch~{batch},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/ladder/size~{size},context~{context},rung~{rung},batch~{batch},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_ladder:
    input:
        records("ladder"),
        rendered("ladder"),
    output:
        rendered_files("ladder"),
    log:
        "<results>/logs/rendered/ladder.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule ladder:
    input:
        rules.render_ladder.output,
