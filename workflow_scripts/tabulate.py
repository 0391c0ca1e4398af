"""Make the tables of an experiment from its records."""

from stepbench import workflow

workflow.tabulate(snakemake)
