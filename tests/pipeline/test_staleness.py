import json
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.pipeline.test_bench import PATH, ROOT, SETTINGS, write

from stepbench.experiments.warmup.cell import Cell as Warmup
from stepbench.pipeline import config, staleness
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States

WILDCARDS = {"machine": "here", "size": "nano", "warmup": "1", "replicate": "0"}
MARKER = ".stepbench/stale/here/warmup/size~nano,warmup~1,replicate~0.json/reasons.txt"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(SETTINGS, root=tmp_path, schema=ROOT / config.SCHEMA)


def other(bench: Bench, **changes: Any) -> Bench:
    return Bench({**SETTINGS, **changes}, root=bench.root, schema=ROOT / config.SCHEMA)


# -- records -----------------------------------------------------------------------------------------------------------


def test_a_fresh_record_needs_nothing(bench: Bench) -> None:
    write(bench)
    assert staleness.needs(States(bench), "warmup")(WILDCARDS) == []
    assert not (bench.root / ".stepbench" / "stale").exists()


def test_a_missing_record_needs_its_tokens(bench: Bench) -> None:
    assert staleness.needs(States(bench), "warmup")(WILDCARDS) == []
    reading = other(bench, data={"source": "corpus", "corpus_bytes": 20000})
    assert staleness.needs(States(reading), "warmup")(WILDCARDS) == ["results/data/corpus~20000~300.npy"]
    assert staleness.needs(States(reading), "numerics")({"case": "accumulation"}) == []


def reasons(marker: Path) -> list[str]:
    """Return what a marker says, without the time at which it was found."""
    *found, at = marker.read_text().splitlines()
    assert at.startswith("found at ")
    return found


def test_a_stale_record_needs_a_marker_that_is_newer_and_says_why(bench: Bench) -> None:
    write(bench)
    today = other(bench, vocabulary=400)
    assert staleness.needs(States(today), "warmup")(WILDCARDS) == [MARKER]
    marker = bench.root / MARKER
    assert reasons(marker) == ["definition: vocabulary was 300, is 400"]
    assert marker.stat().st_mtime >= (bench.root / PATH).stat().st_mtime


def test_a_failed_record_needs_a_marker(bench: Bench) -> None:
    write(bench, status="timeout", reason="too long")
    assert staleness.needs(States(bench), "warmup")(WILDCARDS) == [MARKER]
    assert reasons(bench.root / MARKER) == ["timeout: too long"]


def test_a_marker_never_says_what_it_said_before(bench: Bench) -> None:
    """Snakemake takes a newer input for the old one where its content is the same."""
    write(bench, status="timeout", reason="too long")
    texts = set()
    for _ in range(3):
        staleness.needs(States(bench), "warmup")(WILDCARDS)
        texts.add((bench.root / MARKER).read_text())
    assert len(texts) == 3


def test_a_record_from_the_future_gets_a_marker_of_today_that_is_newer(bench: Bench) -> None:
    write(bench)
    os.utime(bench.root / PATH, (4e9, 4e9))
    staleness.needs(States(other(bench, vocabulary=400)), "warmup")(WILDCARDS)
    assert (bench.root / PATH).stat().st_mtime < (bench.root / MARKER).stat().st_mtime <= time.time()


def test_each_marker_has_a_folder_of_its_own(bench: Bench) -> None:
    """Snakemake lists a folder once, and takes what appears in it later for missing."""
    for warmup in (0, 1):
        write(bench, Warmup("nano", warmup))
    needs = staleness.needs(States(other(bench, vocabulary=400)), "warmup")
    markers = [Path(needs({**WILDCARDS, "warmup": str(warmup)})[0]) for warmup in (0, 1)]
    assert markers[0].parent != markers[1].parent


@pytest.mark.parametrize("change", [{"size": "giant"}, {"warmup": "01"}, {"size": "x; touch PWNED"}])
def test_wildcards_that_name_no_cell_are_refused(bench: Bench, change: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be"):
        staleness.needs(States(bench), "warmup")({**WILDCARDS, **change})


def test_earlier_replicates_have_the_higher_priority() -> None:
    priorities = [staleness.priority(SimpleNamespace(replicate=str(number))) for number in range(12)]
    assert priorities == sorted(priorities, reverse=True)
    assert len(set(priorities)) == 12
    assert staleness.priority(SimpleNamespace(case="accumulation")) == priorities[0]


# -- what is rendered --------------------------------------------------------------------------------------------------

RENDERED = ["warmup", "comparison", "writeup"]


def have_records(bench: Bench) -> list[Path]:
    """Put a file where each record of the grid lies; what is in it does not matter here."""
    found = [bench.root / path for name in bench.names for path in bench.paths(name)]
    for path in found:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return found


@pytest.mark.parametrize("name", RENDERED)
def test_what_is_rendered_by_todays_code_and_grid_needs_nothing(bench: Bench, name: str) -> None:
    needs = staleness.rendered(States(bench), name)
    have_records(bench)
    (marker,) = needs(None)
    assert reasons(bench.root / marker) == ["the record has no fingerprint"]
    staleness.mark_rendered(bench, name)
    assert needs(None) == []
    assert staleness.rendered(States(other(bench, limits={"time_s": 1, "host_memory_gib": 1})), name)(None) == []


@pytest.mark.parametrize("name", ["warmup", "writeup"])
def test_a_record_that_is_gone_has_it_rendered_again(bench: Bench, name: str) -> None:
    staleness.mark_rendered(bench, name)
    gone = next(path for path in have_records(bench) if "/warmup/" in str(path))
    gone.unlink()
    (marker,) = staleness.rendered(States(bench), name)(None)
    assert (bench.root / marker).read_text().startswith(f"{gone.relative_to(bench.root)} is missing\n")


@pytest.mark.parametrize("name", ["warmup", "writeup"])
def test_a_grid_that_shrinks_has_it_rendered_again(bench: Bench, name: str) -> None:
    staleness.mark_rendered(bench, name)
    have_records(bench)
    smaller = {**SETTINGS["experiments"], "warmup": {"cpu": [{"size": ["nano"], "warmup": [0, 1]}]}}
    (marker,) = staleness.rendered(States(other(bench, experiments=smaller)), name)(None)
    text = (bench.root / marker).read_text()
    assert "size~nano,warmup~1,replicate~1.json was True, is None" in text
    assert "replicate~0" not in text


@pytest.mark.parametrize("name", RENDERED)
@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"records": 3}'])
def test_a_note_that_cannot_be_read_has_it_rendered_again(bench: Bench, name: str, content: str) -> None:
    staleness.mark_rendered(bench, name)
    have_records(bench)
    (stamp,) = (bench.root / ".stepbench/rendered").rglob("*.json")
    assert json.loads(stamp.read_text())
    stamp.write_text(content)
    assert len(staleness.rendered(States(bench), name)(None)) == 1


def test_the_records_of_a_rendering_are_its_own_and_those_it_reads(bench: Bench) -> None:
    grids = {**SETTINGS["experiments"], "ceilings": {"cpu": [{"operation": ["copy"]}]}}
    found = staleness.records(other(bench, experiments=grids), "warmup")
    assert [path.split("/")[2] for path in found] == ["warmup"] * 4 + ["ceilings"]
