"""Draw the figures of an experiment from its records."""

from stepbench.pipeline import workflow

workflow.plot(snakemake)
