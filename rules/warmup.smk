rule measure_warmup:
    input:
        needs("warmup"),
    output:
        update(
            "<results>/warmup/size~{size},warmup~{warmup},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/warmup/size~{size},warmup~{warmup},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_warmup:
    input:
        records("warmup"),
        rendered("warmup"),
    output:
        rendered_files("warmup"),
    log:
        "<results>/logs/rendered/warmup.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule warmup:
    input:
        rules.render_warmup.output,
