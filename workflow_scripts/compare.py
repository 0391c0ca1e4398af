"""Hold this machine against all others that are known."""

from stepbench.pipeline import workflow

workflow.compare(snakemake)
