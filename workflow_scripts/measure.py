"""Measure one cell: `measure.py <record> <log>`, where the record's path says which cell. Snakemake starts this."""

import sys
from pathlib import Path

from stepbench.attempt import Attempt

attempt = Attempt(Path(sys.argv[2]))  # first of all: it imports torch while this process imports the rest

from stepbench import workflow  # noqa: E402

workflow.measure(sys.argv[1], attempt)
