"""Measure one cell; the output's path says which."""

from stepbench import workflow

workflow.measure(snakemake)
