"""Draw the figures of an experiment from its records."""

from stepbench import workflow

workflow.plot(snakemake)
