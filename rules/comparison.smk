rule comparison:
    input:
        compared_records,
        rendered("comparison"),
    output:
        "report/comparison.md",
    log:
        f"results/{MACHINE}/logs/comparison.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/compare.py"
