# On a cluster: what one of its nodes is, so that this machine can plan, measure there, and report (docs/cluster.md).
rule describe_machine:
    output:
        "machines/{described}.json",
    log:
        "results/{described}/logs/described.log",
    resources:
        **WHOLE_NODE,
        machine=1,
    shell:
        "{DESCRIBE} {wildcards.described:q} > {log:q} 2>&1"
