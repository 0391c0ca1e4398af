rule measure_collectives:
    input:
        needs("collectives"),
    output:
        update(
            "<results>/collectives/operation~{operation},backend~{backend},ranks~{ranks},payload_bytes~{payload_bytes},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/collectives/operation~{operation},backend~{backend},ranks~{ranks},payload_bytes~{payload_bytes},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_collectives:
    input:
        records("collectives"),
        rendered("collectives"),
    output:
        rendered_files("collectives"),
    log:
        "<results>/logs/rendered/collectives.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule collectives:
    input:
        rules.render_collectives.output,
