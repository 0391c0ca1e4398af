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


rule tabulate_collectives:
    input:
        records("collectives"),
        rendered("tables", "collectives"),
    output:
        multiext("<results>/tables/collectives/messages", ".csv", ".md"),
        multiext("<results>/tables/collectives/fits", ".csv", ".md"),
    log:
        "<results>/logs/tables/collectives.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/tabulate.py"


rule plot_collectives:
    input:
        rules.tabulate_collectives.output,
        rendered("figures", "collectives"),
    output:
        report(
            "<results>/figures/collectives/bandwidth.svg",
            caption="../report/captions/collectives.rst",
            category="collectives",
        ),
        "<results>/figures/collectives/bandwidth.png",
    log:
        "<results>/logs/figures/collectives.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule collectives:
    input:
        rules.tabulate_collectives.output,
        rules.plot_collectives.output,
