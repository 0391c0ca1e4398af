"""The state of a record: fresh, missing, stale or failed, and why."""

import shutil
from typing import Any

import pytest
from tests.pipeline.test_bench import CELL, PATH, SETTINGS, SIZE, Open, bench, open_bench, record, write

from stepbench.experiments.warmup.cell import Cell as Warmup
from stepbench.pipeline import records
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import State, States

__all__ = ["bench", "open_bench"]  # the fixtures


def test_a_record_of_today_is_fresh(bench: Bench) -> None:
    assert States(bench).of(CELL) == State("missing")
    write(bench)
    assert States(bench).of(CELL) == State("fresh", record=record(bench))


@pytest.mark.parametrize(
    ("status", "kind", "reasons"),
    [
        ("error", "failed", ("error: why",)),
        ("timeout", "failed", ("timeout: why",)),  # from before its limit was recorded
        ("oom", "fresh", ()),
        ("unsupported", "fresh", ()),
    ],
)
def test_what_may_go_away_by_itself_is_tried_again(bench: Bench, status: str, kind: str, reasons: Any) -> None:
    write(bench, status=status, reason="why")
    state = States(bench).of(CELL)
    assert (state.kind, state.reasons) == (kind, reasons)


@pytest.mark.parametrize(("then_s", "kind"), [(60, "fresh"), (61, "fresh"), (59, "failed")])
def test_a_timeout_stands_until_there_is_more_time(open_bench: Open, then_s: float, kind: str) -> None:
    bench = open_bench(limits={**SETTINGS["limits"], "time_s": 60})
    write(bench, status="timeout", reason="why", protocol={"time_limit_s": then_s})
    assert States(bench).of(CELL).kind == kind


def test_a_variable_that_may_change_numbers_makes_records_stale(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write(bench)
    monkeypatch.setenv("CUDA_LAUNCH_BLOCKING", "1")
    monkeypatch.setenv("EDITOR", "vi")
    state = States(bench).of(CELL)
    assert (state.kind, state.reasons) == ("stale", ("machine: variables.CUDA_LAUNCH_BLOCKING was None, is '1'",))


def test_a_record_of_other_settings_is_stale(open_bench: Open) -> None:
    write(open_bench())
    today = open_bench(vocabulary=400, sizes={**SETTINGS["sizes"], "nano": {**SIZE, "d_model": 64, "d_ff": 32}})
    state = States(today).of(CELL)
    assert state.kind == "stale"
    assert state.reasons == (
        "definition: size.d_ff was 64, is 32",
        "definition: size.d_model was 32, is 64",
        "definition: vocabulary was 300, is 400",
    )
    assert state.record is not None


def test_a_stale_failure_is_stale(open_bench: Open) -> None:
    write(open_bench(), status="oom", reason="why")
    assert States(open_bench(vocabulary=400)).of(CELL).kind == "stale"


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[1]", b"{" * 10_000])
def test_a_record_that_cannot_be_read_is_stale_and_named(bench: Bench, content: bytes) -> None:
    path = bench.root / PATH
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    state = States(bench).of(CELL)
    assert state.kind == "stale"
    assert state.record is None
    assert state.reasons[0].startswith(f"{path}: ")


def test_a_folder_in_a_records_place_is_stale_and_named(bench: Bench) -> None:
    (bench.root / PATH).mkdir(parents=True)
    assert States(bench).of(CELL).kind == "stale"


def test_a_record_in_another_cells_place_is_stale(bench: Bench) -> None:
    write(bench)
    other = Warmup("nano", 0)
    shutil.copy(bench.root / PATH, bench.root / bench.path(other))
    state = States(bench).of(other)
    assert (state.kind, state.record) == ("stale", None)
    assert "`cell` must be the one that the path names, got {'size': 'nano', 'warmup': 1" in state.reasons[0]


def test_a_record_of_another_experiment_is_stale(bench: Bench) -> None:
    write(bench, experiment="end_to_end")
    assert States(bench).of(CELL).kind == "stale"


@pytest.mark.parametrize("fingerprint", [{}, {"source": None}, {"source": {}, "extra": 1}])
def test_a_record_with_another_fingerprint_is_stale(bench: Bench, fingerprint: Any) -> None:
    write(bench, fingerprint=fingerprint)
    assert States(bench).of(CELL).kind == "stale"


def test_a_record_is_read_once_for_each_content_of_its_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    real = records.read
    monkeypatch.setattr(records, "read", lambda path: (read.append(path), real(path))[1])
    states = States(bench)
    write(bench)
    assert [states.of(CELL).kind for _ in range(3)] == ["fresh"] * 3
    write(bench, status="error", reason="why")
    assert [states.of(CELL).kind for _ in range(3)] == ["failed"] * 3
    (bench.root / PATH).unlink()
    assert states.of(CELL) == State("missing")
    assert len(read) == 2
