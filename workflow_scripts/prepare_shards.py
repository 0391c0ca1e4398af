"""Write the data set that a cell reads from disk."""

from stepbench import workflow

workflow.prepare_shards(snakemake)
