rule measure_data_parallel:
    input:
        needs("data_parallel"),
    output:
        update(
            "<results>/data_parallel/size~{size},strategy~{strategy},context~{context},batch~{batch},bucket_mib~{bucket_mib},ranks~{ranks},nodes~{nodes},precision~{precision},parameter_dtype~{parameter_dtype},attention~{attention},head~{head},groups~{groups},optimizer~{optimizer},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/data_parallel/size~{size},strategy~{strategy},context~{context},batch~{batch},bucket_mib~{bucket_mib},ranks~{ranks},nodes~{nodes},precision~{precision},parameter_dtype~{parameter_dtype},attention~{attention},head~{head},groups~{groups},optimizer~{optimizer},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
        nodes=nodes,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_data_parallel:
    input:
        records("data_parallel"),
        rendered("data_parallel"),
    output:
        rendered_files("data_parallel"),
    log:
        "<results>/logs/rendered/data_parallel.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule data_parallel:
    input:
        rules.render_data_parallel.output,
