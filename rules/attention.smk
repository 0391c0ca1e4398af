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
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule tabulate_attention:
    input:
        records("attention"),
        rendered("tables", "attention"),
    output:
        multiext("<results>/tables/attention/attention", ".csv", ".md"),
        multiext("<results>/tables/attention/kernels", ".csv", ".md"),
    log:
        "<results>/logs/tables/attention.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/tabulate.py"


rule plot_attention:
    input:
        rules.tabulate_attention.output,
        rendered("figures", "attention"),
    output:
        report(
            "<results>/figures/attention/latency.svg",
            caption="../report/captions/attention.rst",
            category="attention",
        ),
        "<results>/figures/attention/latency.png",
        report(
            "<results>/figures/attention/rate.svg",
            caption="../report/captions/attention.rst",
            category="attention",
        ),
        "<results>/figures/attention/rate.png",
    log:
        "<results>/logs/figures/attention.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule attention:
    input:
        rules.tabulate_attention.output,
        rules.plot_attention.output,
