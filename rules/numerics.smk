rule measure_numerics:
    input:
        needs("numerics"),
    output:
        update("<results>/numerics/case~{case}.json"),
    log:
        "<results>/logs/numerics/case~{case}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_numerics:
    input:
        records("numerics"),
        rendered("numerics"),
    output:
        rendered_files("numerics"),
    log:
        "<results>/logs/rendered/numerics.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule numerics:
    input:
        rules.render_numerics.output,
