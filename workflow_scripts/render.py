"""Make the tables and figures of an experiment from its records."""

from stepbench.pipeline import jobs

jobs.render(snakemake)
