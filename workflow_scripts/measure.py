"""Measure one cell; the output's path says which."""

from pathlib import Path

from stepbench.attempt import Attempt

attempt = Attempt(Path(snakemake.log[0]))  # first of all: it imports torch while this process imports the rest

from stepbench import workflow  # noqa: E402

workflow.measure(snakemake, attempt)
