"""Measure one cell: `measure.py <settings> <record> <log>`; the record's path says which. Snakemake starts this."""

import os
import sys
from pathlib import Path

from stepbench.process.attempt import Attempt

launcher = os.getppid()
attempt = Attempt(Path(sys.argv[3]))  # before the rest: it imports torch while this process imports that

from stepbench.pipeline import jobs  # noqa: E402

jobs.measure(__file__, *sys.argv[1:3], attempt, launcher)
