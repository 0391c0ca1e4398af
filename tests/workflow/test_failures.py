"""A failure is a result: it is recorded with its reason, costs no other cell, and is told."""

import json
import os
import signal
from typing import Any

import pytest
from tests.processes import PROMISED_S
from tests.workflow.bench_copy import Copy


def grid(*behaviours: str, **more: list) -> dict:
    return {"toy": {"cpu": [{"behaviour": list(behaviours), **more}]}, "plain": {"cpu": [{"label": ["a"]}]}}


def test_where_every_cell_fails_each_has_a_record_and_the_report_tells_why(fresh: Copy) -> None:
    """Memory is asked for and refused: by the kernel on the host, and in a CUDA device's words where there is none."""
    behaviours = ("raises", "greedy", "cuda", "endless", "unsupported", "leaves")
    fresh.set("experiments", {"toy": {"cpu": [{"behaviour": list(behaviours)}]}})
    fresh.set("limits", {"time_s": 4, "host_memory_gib": 8})
    names = {behaviour: f"toy/{behaviour},nano,0" for behaviour in behaviours}
    with fresh.measuring(*names.values()):
        first = fresh.snakemake()
    assert first.code == 1  # for the failures, which are the last rule's; all others have run
    assert "Error in rule all_measured" in first.err
    found = {behaviour: fresh.record(name) for behaviour, name in names.items()}
    assert {behaviour: (record["status"], record["kind"], record["reason"]) for behaviour, record in found.items()} == {
        "raises": ("error", "exception", "RuntimeError: this toy is broken"),
        "greedy": ("oom", "oom", "MemoryError"),
        "cuda": ("oom", "oom", "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"),
        "endless": ("timeout", "deadline", "no result within 4 s (`limits.time_s`)"),
        "unsupported": ("unsupported", "unsupported", "no machine can do this"),
        "leaves": (
            "error",
            "no_result",
            "the measuring process exited with status 3 and no result; its output ends with: goodbye",
        ),
    }
    shapes = {"size": "nano", "replicate": 0}
    assert all(record["cell"] == {"behaviour": behaviour, **shapes} for behaviour, record in found.items())
    assert "and says so at length" in found["raises"]["traceback"]
    assert 4 <= found["endless"]["duration_s"] < 4 + PROMISED_S
    assert "RuntimeError: this toy is broken" in first.err
    log = fresh.root / "results/here/logs/toy/behaviour~leaves,size~nano,replicate~0.log"
    assert log.read_text() == "goodbye\n"
    assert fresh.half_files() == []

    kinds = fresh.kinds()
    assert {name for name, kind in kinds.items() if kind == "failed"} == {
        names[behaviour] for behaviour in ("raises", "leaves")
    }  # what took too long would do so again, until `limits.time_s` is higher
    page, text = ((fresh.root / f"report/writeup.{kind}").read_text().replace("\xa0", " ") for kind in ("html", "md"))
    for reason in (
        "this toy is broken",
        "MemoryError",
        "Tried to allocate 2.00 GiB",
        "0 of 6 cells gave numbers.",
        "no result within 4 s",
        "no machine can do this",
        "exited with status 3",
    ):
        assert reason in text
        assert reason in page
    failures = (fresh.root / "report/failures.txt").read_text().splitlines()
    assert [line.partition(": ")[2].partition(":")[0] for line in failures] == ["error", "timeout", "error"]

    with fresh.measuring(*(names[behaviour] for behaviour in ("raises", "leaves"))):
        assert fresh.snakemake().code == 1


def test_no_cell_at_all_is_said_and_is_no_success(fresh: Copy) -> None:
    fresh.set("experiments", {"toy": {"gpu": [{"behaviour": ["fine"]}]}})
    assert fresh.snakemake().code == 1
    for kind in ("html", "md"):
        text = (fresh.root / f"report/writeup.{kind}").read_text().replace("\xa0", " ")
        assert "The configuration has no cell on the scale cpu; there is nothing to report." in text
    failures = (fresh.root / "report/failures.txt").read_text()
    assert failures == "config.yaml: `experiments` must have a cell on the scale cpu, got none\n"


@pytest.mark.slow
def test_a_failure_that_goes_away_is_forgotten(fresh: Copy) -> None:
    fresh.set("experiments", grid("raises"))
    fresh.measure()
    fresh.edit("src/stepbench/models/toy_kernel.py", 'if behaviour == "raises":', "if False:")
    with fresh.measuring("toy/raises,nano,0"):
        assert fresh.measure().code == 0
    assert fresh.record("toy/raises,nano,0")["status"] == "ok"
    assert set(fresh.kinds().values()) == {"fresh"}


def read(copy: Copy) -> list[tuple[str, dict[str, Any]]]:
    """Return path and content of each configured cell's record."""
    return [(path, json.loads((copy.root / path).read_text())) for path in copy.targets()]


def test_source_and_settings_that_change_under_a_running_cell_cost_its_result(fresh: Copy) -> None:
    """Three cells wait in turn: under one the source is edited, under the next a setting, under the last a comment."""
    fresh.set("experiments", grid("gated", size=["nano", "micro"], replicate=[0, 1]))
    del fresh.settings["experiments"]["plain"]
    fresh.configure(fresh.settings)
    fresh.make_gate()
    run = fresh.start("-m", "snakemake", "--cores", "1", *fresh.targets())
    config = fresh.root / "config.yaml"

    def edit_source() -> None:
        fresh.edit("src/stepbench/models/toy_kernel.py", "FACTOR = 1", "FACTOR = 3")

    def edit_settings() -> None:
        config.write_text(config.read_text().replace("seed: 0", "seed: 5"))

    def edit_comment() -> None:
        config.write_text("# Nothing to see.\n" + config.read_text())

    for edit in (edit_source, edit_settings, edit_comment, lambda: None):
        fresh.wait_for_cell()
        edit()
        fresh.open_gate()
    assert run.wait(timeout=120) == 0
    records = sorted((record for _, record in read(fresh)), key=lambda record: record["started"])
    first, second, third, fourth = records
    assert first["status"] == second["status"] == "error"
    assert first["kind"] == second["kind"] == "source_changed"
    discarded = "discarded: source or configuration changed during the measurement"
    assert first["reason"] == f"{discarded} (source: stepbench.models.toy_kernel changed)"
    assert second["reason"] == f"{discarded} (config.yaml was edited)"
    assert first["samples"] == second["samples"] == {}
    assert third["status"] == fourth["status"] == "ok"
    assert third["samples"] == {"step_s": [0.75, 1.5]}
    # The run went on with the settings that it had read; by today's they are stale. Between the cells the source had
    # changed, and what began after that says so: its source is today's.
    settings = "stale  definition: protocol.seed was 0, is 5"
    states = fresh.states()
    assert [states[path] for path, record in read(fresh) if record in (third, fourth)] == [settings, settings]
    assert {state.partition(" ")[0] for state in states.values()} == {"stale"}


def test_a_measuring_process_that_is_killed_is_an_error_and_the_run_goes_on(fresh: Copy) -> None:
    fresh.set("experiments", grid("gated"))
    fresh.make_gate()
    run = fresh.start("-m", "snakemake", "--cores", "1", *fresh.targets())
    os.kill(fresh.wait_for_cell(), signal.SIGKILL)
    assert run.wait(timeout=120) == 0
    record = fresh.record("toy/gated,nano,0")
    assert (record["status"], record["kind"]) == ("error", "killed")
    assert record["reason"] == "the measuring process was killed by SIGKILL"
    assert fresh.record("plain/a")["status"] == "ok"
    assert fresh.kinds() == {"toy/gated,nano,0": "failed", "plain/a": "fresh"}
