"""Runs that are told to look away: no stale number stays in a table without a word."""

import pytest
from tests.workflow.bench_copy import Copy

pytestmark = pytest.mark.slow  # real runs, one after the other

TABLE = "results/here/tables/toy/toy.csv"
TOYS = ("toy/fine,nano,0", "toy/fine,micro,0")


def test_what_is_stale_is_made_again_or_the_run_is_refused(measured: Copy) -> None:
    """A setting changes while Snakemake's own notes are garbage. In the tests of staleness they are gone altogether."""
    with measured.measuring():
        assert measured.snakemake(TABLE).code == 0
    measured.set("protocol.seed", 1)
    for note in (path for path in (measured.root / ".snakemake").rglob("*") if path.is_file()):
        note.write_bytes(b"\x00{garbage")
    with measured.measuring():
        touched = measured.snakemake("--touch", TABLE)
        told = measured.snakemake("--rerun-triggers", "code", "params", "--", TABLE)
    assert (touched.code, told.code) == (2, 2)
    assert touched.said == ["`--touch` must not be used when something is stale: it would keep the stale results"]
    assert told.said == ["`--rerun-triggers` must include mtime when something is stale, got code, params"]
    with measured.measuring(*TOYS):
        assert measured.snakemake("--rerun-triggers", "mtime", "code", "params", "input", "--", TABLE).code == 0


def test_where_nothing_is_stale_nothing_is_refused(measured: Copy) -> None:
    with measured.measuring():
        for words in (("--touch",), ("--rerun-triggers", "code", "--")):
            assert measured.snakemake(*words, *measured.targets()).code == 0
    assert set(measured.kinds().values()) == {"fresh"}
