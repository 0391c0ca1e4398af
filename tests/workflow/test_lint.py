"""Snakemake's own lint, in the repository itself; nothing is run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
# A rule's software is the Snakefile's own: what a number was measured with is recorded and part of its fingerprint, and
# a second environment for each rule would be a second torch. MEASURE holds two paths, of the interpreter that runs this
# and of a script, DESCRIBE that interpreter's; what a record depends on is in its fingerprint, and params would be
# evaluated for each of 5 000 jobs.
ACCEPTED = {
    "Specify a conda environment or container for each rule.",
    "Shell command directly uses variable MEASURE from outside of the rule",
    "Shell command directly uses variable DESCRIBE from outside of the rule",
}


def test_snakemake_has_nothing_to_say_but_what_is_accepted():
    lint = [sys.executable, "-m", "snakemake", "--lint"]
    done = subprocess.run(lint, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    titles = set(re.findall(r"^ +\* (.*):$", done.stderr, re.MULTILINE))
    assert titles == ACCEPTED, done.stderr
