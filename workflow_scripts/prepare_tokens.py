"""Tokenise the text that the models read."""

from stepbench import workflow

workflow.prepare_tokens(snakemake)
