rule measure_fits:
    input:
        needs("fits"),
    output:
        update(
            "<results>/fits/source~{source},size~{size},context~{context},precision~{precision},parameter_dtype~{parameter_dtype},attention~{attention},head~{head},groups~{groups},optimizer~{optimizer},ranks~{ranks},memory_mib~{memory_mib}.json"
        ),
    log:
        "<results>/logs/fits/source~{source},size~{size},context~{context},precision~{precision},parameter_dtype~{parameter_dtype},attention~{attention},head~{head},groups~{groups},optimizer~{optimizer},ranks~{ranks},memory_mib~{memory_mib}.log",
    priority: priority_of_round
    resources:
        **NODE,
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule render_fits:
    input:
        records("fits"),
        rendered("fits"),
    output:
        rendered_files("fits"),
    log:
        "<results>/logs/rendered/fits.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/render.py"


rule fits:
    input:
        rules.render_fits.output,
