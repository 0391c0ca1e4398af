rule measure_attention:
    input:
        needs("attention"),
    output:
        update(
            "<results>/attention/implementation~{implementation},seq~{seq},head_dim~{head_dim},heads~{heads},batch~{batch},dtype~{dtype},causal~{causal},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/attention/implementation~{implementation},seq~{seq},head_dim~{head_dim},heads~{heads},batch~{batch},dtype~{dtype},causal~{causal},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_attention:
    input:
        records("attention"),
        rendered("attention"),
    output:
        rendered_files("attention"),
    log:
        "<results>/logs/rendered/attention.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule attention:
    input:
        rules.render_attention.output,
