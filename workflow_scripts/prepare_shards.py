"""Write the data set that a cell reads from disk."""

from stepbench.pipeline import workflow

workflow.prepare_shards(snakemake)
