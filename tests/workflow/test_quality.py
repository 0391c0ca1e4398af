"""The quality of what was measured, what is measured again for it, and two cells that are measured in turn."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import pytest
from tests.workflow.bench_copy import Copy

from stepbench.pipeline import records

pytestmark = pytest.mark.slow  # real runs, one after the other


@pytest.fixture
def undisturbed(measured: Copy) -> Copy:
    """A copy whose records say nothing of other load, of which there is some beside a test."""
    for path in (measured.root / each for each in measured.targets()):
        records.write(path, dataclasses.replace(records.read(path), environment={}))
    return measured


def test_cells_and_why_tell_the_quality_of_numbers(undisturbed: Copy) -> None:
    """Two samples of a toy differ by half, which is noise; the plain one has one sample and nothing to say of it."""
    measured = undisturbed
    rows = json.loads(measured.python("-m", "stepbench", "cells", "--json").out)
    assert {row["path"].split("/")[2]: row["quality"] for row in rows} == {"toy": "B", "plain": "A"}
    assert all(row["warnings"].startswith("noisy (CV") for row in rows if "/toy/" in row["path"])
    lines = measured.python("-m", "stepbench", "cells", "--quality", "B").out.splitlines()
    assert [line.split("  ")[1:2] for line in lines] == [["fresh"]] * 2
    assert all("  quality B: noisy (CV" in line for line in lines)
    assert measured.python("-m", "stepbench", "cells", "--quality", "C").out == ""
    told = measured.python("-m", "stepbench", "why", rows[0]["path"]).out.splitlines()
    assert told[0].endswith("  fresh")
    assert told[1].startswith("  quality B noisy (CV")
    (row,) = csv.DictReader(io.StringIO(measured.python("-m", "stepbench", "why", "--csv", rows[0]["path"]).out))
    assert (row["state"], row["quality"], row["in_grid"]) == ("fresh", "B", "True")


def test_what_is_of_poor_quality_is_measured_again(undisturbed: Copy) -> None:
    done = undisturbed.python("-m", "stepbench", "again")
    assert (done.code, done.err) == (0, "no record has quality C or a worse one\n")
    done = undisturbed.python("-m", "stepbench", "again", "--quality", "B", "--where", "size=nano")
    assert done.code == 0, done.err
    first, *_, last = done.err.splitlines()
    assert first == "[1/1] measuring toy behaviour~fine,size~nano,replicate~0 (the last one)"
    assert last == "measured again: 1; still of quality B or a worse one: 1"
    history = undisturbed.root / "results/here/history/toy/behaviour~fine,size~nano,replicate~0"
    assert len(list(history.glob("*.json"))) == 1  # the old one, or the new one if other load was worse


def test_two_cells_are_measured_in_turn_and_compared(fresh: Copy) -> None:
    sides = [f"behaviour={each},size=nano" for each in ("x", "y")]
    done = fresh.python("-m", "stepbench", "measure", "toy", *sides, "--replicates", "2", "--json")
    assert done.code == 0, done.err
    records = [fresh.record(f"toy/{each},nano,{number}") for each in ("x", "y") for number in (0, 1)]
    records.sort(key=lambda record: record["started"])
    assert ["{behaviour}{replicate}".format(**record["cell"]) for record in records] == ["x0", "y0", "y1", "x1"]
    compared, own = json.loads(done.out)
    assert compared["caption"].startswith("a: behaviour x; b: behaviour y. The ratio is the speed")
    (row,) = compared["rows"]
    assert (row["time"], row["a_median_s"], row["speedup_ratio"], row["processes"]) == ("step", 0.375, 1.0, "2 / 2")
    assert row["verdict"] == "2 processes each: no verdict below five"
    assert row["warnings"].startswith("noisy (a CV")
    assert [line["behaviour"] for line in own["rows"]] == ["x", "x", "y", "y"]
    refused = fresh.python("-m", "stepbench", "measure", "toy", sides[0], sides[0])
    assert (refused.code, refused.said) == (2, ["the two cells must differ in an axis other than `replicate`"])
    refused = fresh.python("-m", "stepbench", "measure", "toy", sides[0], "--replicates", "5")
    assert refused.said == ["`--replicates` is for two cells, which are measured in turn, got one cell"]
