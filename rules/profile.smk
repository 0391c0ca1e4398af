rule measure_profile:
    input:
        needs("profile"),
    output:
        update(
            "<results>/profile/size~{size},context~{context},batch~{batch},precision~{precision},implementation~{implementation},passes~{passes},replicate~{replicate}.json"
        ),
    log:
        "<results>/logs/profile/size~{size},context~{context},batch~{batch},precision~{precision},implementation~{implementation},passes~{passes},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    shell:
        "{MEASURE} {output:q} {log:q}"


rule tabulate_profile:
    input:
        records("profile"),
        rendered("tables", "profile"),
    output:
        multiext("<results>/tables/profile/phases", ".csv", ".md"),
        multiext("<results>/tables/profile/attention", ".csv", ".md"),
        multiext("<results>/tables/profile/operators", ".csv", ".md"),
        multiext("<results>/tables/profile/kernels", ".csv", ".md"),
        multiext("<results>/tables/profile/nsys", ".csv", ".md"),
    log:
        "<results>/logs/tables/profile.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/tabulate.py"


rule plot_profile:
    input:
        rules.tabulate_profile.output,
        rendered("figures", "profile"),
    output:
        report(
            "<results>/figures/profile/shares.svg",
            caption="../report/captions/profile.rst",
            category="profile",
        ),
        "<results>/figures/profile/shares.png",
        report(
            "<results>/figures/profile/operators.svg",
            caption="../report/captions/profile.rst",
            category="profile",
        ),
        "<results>/figures/profile/operators.png",
    log:
        "<results>/logs/figures/profile.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule profile:
    input:
        rules.tabulate_profile.output,
        rules.plot_profile.output,
