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


_RULE = re.compile(r"^rule ", re.MULTILINE)


def test_snakemake_has_nothing_to_say_but_what_is_accepted():
    lint = [sys.executable, "-m", "snakemake", "--lint"]
    done = subprocess.run(lint, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    titles = set(re.findall(r"^ +\* (.*):$", done.stderr, re.MULTILINE))
    assert titles == ACCEPTED, done.stderr


def test_each_rule_measures_on_a_node_or_runs_where_snakemake_does() -> None:
    """Tokens, shards and descriptions are made by small jobs: a login node may not write that much, and is no node."""
    small = {"prepare_shards", "prepare_tokens", "describe_machine"}
    rules = [text for file in (REPOSITORY / "rules").glob("*.smk") for text in _RULE.split(file.read_text())[1:]]
    made = {name: text for name, _, text in (rule.partition(":") for rule in rules) if "    output:" in text}
    assert small < made.keys()
    for name, text in made.items():
        assert ("**NODE" in text) == name.startswith("measure_"), name
        assert ("localrule: True" in text) == (name not in small and not name.startswith("measure_")), name
