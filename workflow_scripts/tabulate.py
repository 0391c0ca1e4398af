"""Make the tables of an experiment from its records."""

from stepbench.pipeline import workflow

workflow.tabulate(snakemake)
