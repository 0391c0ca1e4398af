import dataclasses
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.test_bench import CELL, PATH, ROOT, SETTINGS, record, write

from stepbench.pipeline import config, history, records
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States

LATER = "2026-01-02T03:04:05.678+00:00"
LOADED = {"during": {"wall_s": 10.0, "cores": 2, "others_cpu_s": 15.0, "stolen_cpu_s": 0.0}}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(SETTINGS, root=tmp_path, schema=ROOT / config.SCHEMA)


def path(bench: Bench) -> Path:
    return bench.root / PATH


def put(bench: Bench, *, take: bool = False, **changes: Any) -> history.Choice | None:
    """Write a new measurement as the measuring process does, and return the choice."""
    states = States(bench)
    before, now = states.of(CELL).record, record(bench, **changes)
    history.put(states, CELL, now, take=take)
    return history.choose(states, CELL, before, now, take=take)


def kept(bench: Bench) -> list[str]:
    return [entry.record.started for entry in history.read(path(bench)).entries]


# -- what is replaced --------------------------------------------------------------------------------------------------


def test_a_record_with_numbers_goes_to_the_history_as_it_is(bench: Bench) -> None:
    write(bench)
    old = path(bench).read_bytes()
    history.replace(path(bench), record(bench, started=LATER))
    (entry,) = history.read(path(bench)).entries
    folder = bench.root / "results/here/history/warmup/size~nano,warmup~1,replicate~0"
    assert entry.path == folder / "2026-01-01T00-00-00.000Z.json"
    assert entry.path.read_bytes() == old
    assert records.read(path(bench)).started == LATER
    assert history.read(path(bench)).refused == ()


@pytest.mark.parametrize(
    "standing",
    [None, "{", {"status": "oom", "reason": "no memory", "samples": {}}],
    ids=["nothing", "no record", "a failure"],
)
def test_what_has_no_numbers_leaves_nothing_behind(bench: Bench, standing: Any) -> None:
    path(bench).parent.mkdir(parents=True)
    if isinstance(standing, dict):
        write(bench, **standing)
    elif standing is not None:
        path(bench).write_text(standing)
    history.replace(path(bench), record(bench))
    assert kept(bench) == []
    assert not (bench.root / "results/here/history").exists()
    assert records.read(path(bench)).ok


def test_a_record_that_is_not_valid_replaces_nothing(bench: Bench) -> None:
    write(bench)
    with pytest.raises(records.RecordError, match="finite"):
        history.replace(path(bench), record(bench, samples={"step_s": [float("nan")]}))
    assert kept(bench) == []
    assert records.read(path(bench)) == record(bench)


def test_two_records_of_one_moment_are_both_kept(bench: Bench) -> None:
    write(bench)
    history.replace(path(bench), record(bench, duration_s=2.0))
    history.replace(path(bench), record(bench, duration_s=2.0))
    history.replace(path(bench), record(bench, duration_s=3.0))
    assert sorted(entry.record.duration_s for entry in history.read(path(bench)).entries) == [1.0, 2.0]


@pytest.mark.parametrize("started", ["yesterday", "../../x", "2026-01-01T00:00:00", "0001-01-01T00:00:00+20:00"])
def test_a_moment_from_elsewhere_is_no_path(bench: Bench, started: str) -> None:
    write(bench, started=started)
    history.replace(path(bench), record(bench))
    (entry,) = history.read(path(bench)).entries
    assert entry.path.parent == history.folder(path(bench))
    assert entry.record.started == started


def test_a_file_in_the_history_that_is_no_record_is_named(bench: Bench) -> None:
    write(bench)
    history.replace(path(bench), record(bench, started=LATER))
    (entry,) = history.read(path(bench)).entries
    entry.path.write_text(entry.path.read_text().replace('"duration_s": 1.0', '"duration_s": 0.5'))
    found = history.read(path(bench))
    assert found.entries == ()
    assert "checksum mismatch" in found.refused[0]


def test_a_process_that_is_killed_at_any_moment_leaves_the_old_record_or_both(bench: Bench) -> None:
    write(bench)
    command = [sys.executable, str(Path(__file__).with_name("kill_while_replacing.py")), str(path(bench)), "0.5"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["children"] > 50
    # The old one alone, the old one in both places, and the new one with the old one in the history.
    assert told["states"] == [[False, False], [False, True], [True, True]]


# -- which of two is kept ----------------------------------------------------------------------------------------------


def test_a_disturbed_measurement_does_not_replace_a_better_one_by_itself(bench: Bench) -> None:
    write(bench)
    choice = put(bench, started=LATER, environment=LOADED)
    assert choice == history.Choice("A", "C", "disturbed (75 % of the CPU used by other processes)", takes=False)
    assert "a fresh record of quality A stood there, and this measurement is C (disturbed" in str(choice)
    assert "the old record is kept, and this one is in the history" in str(choice)
    assert records.read(path(bench)).started < LATER
    assert kept(bench) == [LATER]


def test_it_does_where_it_is_told_to(bench: Bench) -> None:
    write(bench)
    choice = put(bench, take=True, started=LATER, environment=LOADED)
    assert choice
    assert choice.takes
    assert records.read(path(bench)).started == LATER
    assert len(kept(bench)) == 1


def test_a_failure_does_not_replace_a_number_of_the_same_fingerprint(bench: Bench) -> None:
    write(bench)
    choice = put(bench, status="timeout", reason="no result within 60 s", samples={})
    assert choice == history.Choice("A", "timeout", "no result within 60 s", takes=False)
    assert "the old record is kept; " in str(choice)
    assert records.read(path(bench)).ok
    assert kept(bench) == []


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({}, {}),
        ({"environment": LOADED}, {}),
        ({"environment": LOADED}, {"environment": LOADED}),
        ({}, {"samples": {"step_s": [0.1, 0.2, 0.1, 0.2]}}),
    ],
    ids=["as good", "better", "as disturbed", "noisy"],
)
def test_everything_else_takes_the_place_of_the_old_one(
    bench: Bench, before: dict[str, Any], now: dict[str, Any]
) -> None:
    write(bench, **before)
    choice = put(bench, started=LATER, **now)
    assert choice
    assert choice.takes
    assert records.read(path(bench)).started == LATER
    assert len(kept(bench)) == 1


def test_a_stale_record_is_replaced_whatever_comes(bench: Bench) -> None:
    write(bench, fingerprint={"software": {"torch": "2.12.1"}})
    assert put(bench, started=LATER, environment=LOADED) is None
    assert records.read(path(bench)).started == LATER
    assert len(kept(bench)) == 1


def test_there_is_nothing_to_choose_where_nothing_stood(bench: Bench) -> None:
    assert put(bench) is None
    assert records.read(path(bench)).ok
    write(bench, status="error", reason="it raised", samples={})
    assert put(bench, started=LATER, environment=LOADED) is None
    assert records.read(path(bench)).started == LATER


# -- bounds ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def five(bench: Bench) -> Bench:
    """A cell with a history of five days, 1 to 5 January."""
    for day in range(1, 7):
        history.replace(path(bench), record(bench, started=f"2026-01-0{day}T00:00:00.000+00:00"))
    assert len(kept(bench)) == 5
    return bench


@pytest.mark.parametrize(
    ("bounds", "days"),
    [
        ({"most": 2}, [1, 2, 3]),
        ({"days": 3.5}, [1, 2]),
        ({"most": 4, "days": 100}, [1]),
        ({"most": 0}, [1, 2, 3, 4, 5]),
    ],
)
def test_a_history_is_bounded_by_count_and_by_age(five: Bench, bounds: dict[str, Any], days: list[int]) -> None:
    now = datetime.datetime(2026, 1, 6, tzinfo=datetime.UTC)
    found = history.surplus(five.root / "results/here", now=now, **bounds)
    assert [file.name for file in found] == [f"2026-01-0{day}T00-00-00.000Z.json" for day in days]
    history.remove(found)
    assert [int(started[8:10]) for started in kept(five)] == [day for day in range(1, 6) if day not in days]
    assert history.folder(path(five)).exists() == (len(days) < 5)


def test_a_record_of_before_there_was_a_history_is_read(bench: Bench) -> None:
    """Version 1 has not changed: what was written then is fresh or stale by its fingerprint, and has no history."""
    write(bench)
    content = json.loads(path(bench).read_text())
    del content["kind"], content["checksum"]
    path(bench).write_text(json.dumps({**content, "checksum": records.checksum(content)}))
    assert States(bench).of(CELL).kind == "fresh"
    old = path(bench).read_bytes()
    history.replace(path(bench), dataclasses.replace(record(bench), started=LATER))
    assert [entry.path.read_bytes() for entry in history.read(path(bench)).entries] == [old]
