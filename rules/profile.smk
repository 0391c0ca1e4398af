rule measure_profile:
    input:
        needs("profile"),
    output:
        update(
            "results/{machine}/profile/size~{size},context~{context},batch~{batch},precision~{precision},implementation~{implementation},passes~{passes},replicate~{replicate}.json"
        ),
    log:
        "results/{machine}/logs/profile/size~{size},context~{context},batch~{batch},precision~{precision},implementation~{implementation},passes~{passes},replicate~{replicate}.log",
    priority: priority_of_round
    resources:
        machine=1,
    script:
        "../workflow_scripts/measure.py"


rule tabulate_profile:
    input:
        records("profile"),
        rendered("tables", "profile"),
    output:
        multiext("results/{machine}/tables/profile/phases", ".csv", ".md"),
        multiext("results/{machine}/tables/profile/attention", ".csv", ".md"),
        multiext("results/{machine}/tables/profile/operators", ".csv", ".md"),
        multiext("results/{machine}/tables/profile/kernels", ".csv", ".md"),
        multiext("results/{machine}/tables/profile/nsys", ".csv", ".md"),
    log:
        "results/{machine}/logs/tables/profile.log",
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
            "results/{machine}/figures/profile/shares.svg",
            caption="../report/captions/profile.rst",
            category="profile",
        ),
        "results/{machine}/figures/profile/shares.png",
        report(
            "results/{machine}/figures/profile/operators.svg",
            caption="../report/captions/profile.rst",
            category="profile",
        ),
        "results/{machine}/figures/profile/operators.png",
    log:
        "results/{machine}/logs/figures/profile.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/plot.py"


rule profile:
    input:
        expand(rules.tabulate_profile.output, machine=MACHINE),
        expand(rules.plot_profile.output, machine=MACHINE),
