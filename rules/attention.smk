rule measure_attention:
    input:
        needs("attention"),
    output:
        update(
            "results/{machine}/attention/implementation~{implementation},seq~{seq},head_dim~{head_dim},heads~{heads},batch~{batch},dtype~{dtype},causal~{causal},replicate~{replicate}.json"
        ),
    log:
        "results/{machine}/logs/attention/implementation~{implementation},seq~{seq},head_dim~{head_dim},heads~{heads},batch~{batch},dtype~{dtype},causal~{causal},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    script:
        "../workflow_scripts/measure.py"


rule tabulate_attention:
    input:
        records("attention"),
        rendered("tables", "attention"),
    output:
        multiext("results/{machine}/tables/attention/attention", ".csv", ".md"),
        multiext("results/{machine}/tables/attention/kernels", ".csv", ".md"),
    log:
        "results/{machine}/logs/tables/attention.log",
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
            "results/{machine}/figures/attention/latency.svg",
            caption="../report/captions/attention.rst",
            category="attention",
        ),
        "results/{machine}/figures/attention/latency.png",
        report(
            "results/{machine}/figures/attention/rate.svg",
            caption="../report/captions/attention.rst",
            category="attention",
        ),
        "results/{machine}/figures/attention/rate.png",
    log:
        "results/{machine}/logs/figures/attention.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule attention:
    input:
        expand(rules.tabulate_attention.output, machine=MACHINE),
        expand(rules.plot_attention.output, machine=MACHINE),
