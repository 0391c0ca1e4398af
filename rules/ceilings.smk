rule measure_ceilings:
    input:
        needs("ceilings"),
    output:
        update(
            "<results>/ceilings/operation~{operation},dtype~{dtype},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/ceilings/operation~{operation},dtype~{dtype},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_ceilings:
    input:
        records("ceilings"),
        rendered("ceilings"),
    output:
        rendered_files("ceilings"),
    log:
        "<results>/logs/rendered/ceilings.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule ceilings:
    input:
        rules.render_ceilings.output,
