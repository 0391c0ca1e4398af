rule comparison:
    input:
        [getattr(rules, name).input for name in COMPARED],
        rendered("comparison"),
    output:
        markdown="report/comparison.md",
        json="report/comparison.json",
    log:
        "<results>/logs/comparison.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/compare.py"


rule explore:
    input:
        [getattr(rules, name).input for name in BENCH.names],
        "report/templates/explore.html.j2",
        "report/templates/explore.js",
        rendered("exploration"),
    output:
        "report/explore.html",
    log:
        "<results>/logs/explore.log",
    localrule: True
    resources:
        machine=1,
    script:
        "../workflow_scripts/explore.py"
