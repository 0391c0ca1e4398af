"""Hold this machine against all others that are known."""

from stepbench.pipeline import jobs

jobs.compare(snakemake)
