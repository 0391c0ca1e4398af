"""Write the data set that a cell reads from disk."""

from stepbench.pipeline import jobs

jobs.prepare_shards(snakemake)
