"""Write a first report from the records that are there."""

from stepbench.pipeline import jobs

jobs.write_first(snakemake)
