rule changes:
    input:
        [getattr(rules, name).input for name in BENCH.names],
        rendered("changes"),
    output:
        markdown="report/changes.md",
        json="report/changes.json",
        figure=report(
            "<results>/figures/changes/trend.svg",
            caption="../report/captions/changes.rst",
            category="changes",
        ),
    log:
        "<results>/logs/changes.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/changes.py"
