"""Hold this machine against all others that are known."""

from stepbench import workflow

workflow.compare(snakemake)
