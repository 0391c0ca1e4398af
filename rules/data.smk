rule prepare_shards:
    output:
        str(SHARDS_DIR / "{shards}" / "index.json"),
    log:
        "results/data/{shards}.log",
    resources:
        machine=1,
    script:
        "../workflow_scripts/prepare_shards.py"


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
