"""Tokenise the text that the models read."""

from stepbench.pipeline import workflow

workflow.prepare_tokens(snakemake)
