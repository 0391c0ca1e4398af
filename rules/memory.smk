rule measure_memory:
    input:
        needs("memory"),
    output:
        update(
            "<results>/memory/source~{source},size~{size},context~{context},batch~{batch},precision~{precision},parameter_dtype~{parameter_dtype},attention~{attention},head~{head},groups~{groups},passes~{passes},optimizer~{optimizer}.json"
        ),
    log:
        "<results>/logs/memory/source~{source},size~{size},context~{context},batch~{batch},precision~{precision},parameter_dtype~{parameter_dtype},attention~{attention},head~{head},groups~{groups},passes~{passes},optimizer~{optimizer}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_memory:
    input:
        records("memory"),
        rendered("memory"),
    output:
        rendered_files("memory"),
    log:
        "<results>/logs/rendered/memory.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule memory:
    input:
        rules.render_memory.output,
