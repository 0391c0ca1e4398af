rule measure_collectives:
    input:
        needs("collectives"),
    output:
        update(
            "<results>/collectives/operation~{operation},backend~{backend},ranks~{ranks},payload_bytes~{payload_bytes},nodes~{nodes},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/collectives/operation~{operation},backend~{backend},ranks~{ranks},payload_bytes~{payload_bytes},nodes~{nodes},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
        nodes=nodes,
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
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule collectives:
    input:
        rules.render_collectives.output,
