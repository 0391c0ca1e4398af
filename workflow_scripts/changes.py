"""Hold today's numbers against those of earlier code and software."""

from stepbench.pipeline import jobs

jobs.find_changes(snakemake)
