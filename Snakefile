from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"
include: "rules/machines.smk"
include: "rules/data.smk"
include: "rules/ceilings.smk"
include: "rules/end_to_end.smk"
include: "rules/ladder.smk"
include: "rules/warmup.smk"
include: "rules/attention.smk"
include: "rules/memory.smk"
include: "rules/checkpointing.smk"
include: "rules/fits.smk"
include: "rules/profile.smk"
include: "rules/collectives.smk"
include: "rules/data_parallel.smk"
include: "rules/optimizer_sharding.smk"
include: "rules/fsdp.smk"
include: "rules/encoder_decoder.smk"
include: "rules/numerics.smk"
include: "rules/comparison.smk"
include: "rules/changes.smk"
include: "rules/writeup.smk"


rule all:
    default_target: True
    input:
        "report/writeup.md",
        "report/writeup.html",
        "report/explore.html",
        "report/all_measured",


onstart:
    start_run(BENCH, workflow)


onerror:
    leave_if_ended()
