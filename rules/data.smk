rule prepare_tokens:
    input:
        BENCH.text,
    output:
        "results/data/{tokens}.npy",
    log:
        "results/data/{tokens}.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/prepare_tokens.py"
