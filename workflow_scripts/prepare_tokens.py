"""Tokenise the text that the models read."""

from stepbench.pipeline import jobs

jobs.prepare_tokens(snakemake)
