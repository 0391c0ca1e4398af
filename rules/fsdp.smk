rule measure_fsdp:
    input:
        needs("fsdp"),
    output:
        update(
            "<results>/fsdp/source~{source},size~{size},variant~{variant},context~{context},batch~{batch},ranks~{ranks},nodes~{nodes},precision~{precision},parameter_dtype~{parameter_dtype},attention~{attention},head~{head},groups~{groups},compute_dtype~{compute_dtype},prefetch~{prefetch},optimizer~{optimizer},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/fsdp/source~{source},size~{size},variant~{variant},context~{context},batch~{batch},ranks~{ranks},nodes~{nodes},precision~{precision},parameter_dtype~{parameter_dtype},attention~{attention},head~{head},groups~{groups},compute_dtype~{compute_dtype},prefetch~{prefetch},optimizer~{optimizer},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
        nodes=nodes,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_fsdp:
    input:
        records("fsdp"),
        rendered("fsdp"),
    output:
        rendered_files("fsdp"),
    log:
        "<results>/logs/rendered/fsdp.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule fsdp:
    input:
        rules.render_fsdp.output,
