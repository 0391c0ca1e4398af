rule measure_optimizer_sharding:
    input:
        needs("optimizer_sharding"),
    output:
        update(
            "<results>/optimizer_sharding/source~{source},size~{size},variant~{variant},context~{context},batch~{batch},ranks~{ranks},nodes~{nodes},precision~{precision},parameter_dtype~{parameter_dtype},attention~{attention},head~{head},groups~{groups},optimizer~{optimizer},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/optimizer_sharding/source~{source},size~{size},variant~{variant},context~{context},batch~{batch},ranks~{ranks},nodes~{nodes},precision~{precision},parameter_dtype~{parameter_dtype},attention~{attention},head~{head},groups~{groups},optimizer~{optimizer},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
        nodes=nodes,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_optimizer_sharding:
    input:
        records("optimizer_sharding"),
        rendered("optimizer_sharding"),
    output:
        rendered_files("optimizer_sharding"),
    log:
        "<results>/logs/rendered/optimizer_sharding.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule optimizer_sharding:
    input:
        rules.render_optimizer_sharding.output,
