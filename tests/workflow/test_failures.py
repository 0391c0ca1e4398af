"""A failure is a result: it is recorded with its reason, costs no other cell, and is told (`done when` 3 and 4)."""

import json
import os
import signal

import psutil
import pytest
from tests.workflow.bench_copy import PROMISED_S, Copy, gone


def grid(*behaviours: str, **more: list) -> dict:
    return {"toy": {"cpu": [{"behaviour": list(behaviours), **more}]}, "plain": {"cpu": [{"label": ["a"]}]}}


def test_each_way_to_fail_leaves_a_record_with_its_reason(fresh: Copy) -> None:
    behaviours = ("raises", "greedy", "endless", "unsupported", "leaves")
    fresh.set("experiments", grid(*behaviours))
    fresh.set("limits", {"time_s": 1.5, "host_memory_gib": 8})
    names = {behaviour: f"toy/{behaviour},nano,0" for behaviour in behaviours}
    with fresh.measuring(*names.values(), "plain/a"):
        first = fresh.snakemake()
    assert first.code == 1  # for the failures, which are the last rule's; all others have run
    assert "Error in rule all_measured" in first.err
    found = {behaviour: fresh.record(name) for behaviour, name in names.items()}
    assert {behaviour: (record["status"], record["reason"]) for behaviour, record in found.items()} == {
        "raises": ("error", "RuntimeError: this toy is broken"),
        "greedy": ("oom", "MemoryError: no message"),
        "endless": ("timeout", "no result after 1.5 s (`limits.time_s`)"),
        "unsupported": ("unsupported", "no machine can do this"),
        "leaves": ("error", "the measuring process left with exit code 3 and no result: goodbye"),
    }
    assert "and says so at length" in found["raises"]["traceback"]
    assert 1.5 <= found["endless"]["duration_s"] < 1.5 + PROMISED_S
    assert "RuntimeError: this toy is broken" in first.err
    log = fresh.root / "results/here/logs/toy/behaviour~leaves,size~nano,replicate~0.log"
    assert log.read_text() == "goodbye\n"
    assert fresh.half_files() == []

    kinds = fresh.kinds()
    assert {name for name, kind in kinds.items() if kind == "failed"} == {
        names[behaviour] for behaviour in ("raises", "endless", "leaves")
    }
    page, text = ((fresh.root / f"report/writeup.{kind}").read_text().replace("\xa0", " ") for kind in ("html", "md"))
    for reason in (
        "this toy is broken",
        "MemoryError",
        "no result after 1.5 s",
        "no machine can do this",
        "exit code 3",
    ):
        assert reason in text
        assert reason in page
    failures = (fresh.root / "report/failures.txt").read_text().splitlines()
    assert [line.partition(": ")[2].partition(":")[0] for line in failures] == ["error", "timeout", "error"]

    with fresh.measuring(*(names[behaviour] for behaviour in ("raises", "endless", "leaves"))):
        assert fresh.snakemake().code == 1


def test_a_failure_that_goes_away_is_forgotten(fresh: Copy) -> None:
    fresh.set("experiments", grid("raises"))
    fresh.measure()
    fresh.edit("src/stepbench/models/toy_kernel.py", 'if behaviour == "raises":', "if False:")
    with fresh.measuring("toy/raises,nano,0"):
        assert fresh.measure().code == 0
    assert fresh.record("toy/raises,nano,0")["status"] == "ok"
    assert set(fresh.kinds().values()) == {"fresh"}


def test_source_and_settings_that_change_under_a_running_cell_cost_its_result(fresh: Copy) -> None:
    """Three cells wait in turn: under one the source is edited, under the next a setting, under the last a comment."""
    fresh.set("experiments", grid("gated", size=["nano", "micro"], replicate=[0, 1]))
    del fresh.settings["experiments"]["plain"]
    fresh.configure(fresh.settings)
    fresh.make_gate()
    run = fresh.start("-m", "snakemake", "--cores", "1", *fresh.states())
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
    records = sorted((fresh.record(name) for name in fresh.kinds()), key=lambda record: record["started"])
    first, second, third, fourth = records
    assert first["status"] == second["status"] == "error"
    discarded = "discarded, because what is measured changed during the measurement: "
    assert first["reason"] == f"{discarded}source: stepbench.models.toy_kernel changed"
    assert second["reason"] == f"{discarded}config.yaml was edited"
    assert first["samples"] == second["samples"] == {}
    assert third["status"] == fourth["status"] == "ok"
    assert third["samples"] == {"step_s": [0.75, 1.5]}
    # The run went on with the settings that it had read; by today's they are stale.
    assert fresh.kinds() == dict.fromkeys(fresh.kinds(), "stale")


# -- killed ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["run", "group", "script"])
def test_a_run_that_is_killed_leaves_nobody_and_nothing_half_done(measured: Copy, victim: str) -> None:
    """The run alone, with all of its group as when the power fails, or the job's script."""
    measured.set("experiments", grid("fine", "gated", size=["nano"]))
    measured.make_gate()
    kept = measured.files()
    run = measured.start("-m", "snakemake", "--cores", "1", *measured.states())
    cell = measured.wait_for_cell()
    script = psutil.Process(cell).ppid()
    caused = [process.pid for process in measured.processes()]
    assert {cell, script, run.pid} <= set(caused)
    if victim == "run":
        run.kill()
    elif victim == "group":
        os.killpg(run.pid, signal.SIGKILL)
    else:
        os.kill(script, signal.SIGKILL)
    if victim == "script":
        assert gone([cell, script])
        assert run.wait(timeout=60) == 1
    assert gone(caused)
    assert measured.files() == kept
    assert measured.half_files() == []

    again = measured.start("-m", "snakemake", "--cores", "1", *measured.states())  # needs no hand
    measured.wait_for_cell()
    measured.open_gate()
    assert again.wait(timeout=120) == 0
    assert {name for name in measured.files() if name not in kept} == {"toy/gated,nano,0"}
    assert all(measured.files()[name] == file for name, file in kept.items())
    assert set(measured.kinds().values()) == {"fresh"}


def test_a_measuring_process_that_is_killed_is_an_error_and_the_run_goes_on(fresh: Copy) -> None:
    fresh.set("experiments", grid("gated"))
    fresh.make_gate()
    run = fresh.start("-m", "snakemake", "--cores", "1", *fresh.states())
    os.kill(fresh.wait_for_cell(), signal.SIGKILL)
    assert run.wait(timeout=120) == 0
    record = fresh.record("toy/gated,nano,0")
    assert (record["status"], record["reason"]) == ("error", "the measuring process was killed by SIGKILL")
    assert fresh.record("plain/a")["status"] == "ok"
    assert fresh.kinds() == {"toy/gated,nano,0": "failed", "plain/a": "fresh"}


def test_a_second_run_ends_and_names_the_first(measured: Copy) -> None:
    measured.set("experiments", grid("fine", "gated"))
    measured.make_gate()
    run = measured.start("-m", "snakemake", "--cores", "1", *measured.states())
    cell = measured.wait_for_cell()
    with measured.measuring():
        second = measured.snakemake("results/here/toy/behaviour~fine,size~nano,replicate~9.json")
        third = measured.python("-m", "stepbench", "measure", "plain", "label~b")
    holder = f"this folder must be free to run in, but process {run.pid} (since "
    assert second.code != 0
    assert third.code == 1
    assert [line[: len(holder)] for line in second.said + third.said] == [holder, holder]
    assert second.seconds < 30
    assert psutil.pid_exists(cell)
    measured.open_gate()
    assert run.wait(timeout=120) == 0
    assert set(measured.kinds().values()) == {"fresh"}


def test_a_dead_runs_lock_is_no_lock(measured: Copy) -> None:
    lock = measured.root / ".stepbench/run.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text("process 1 (since 2020-01-01 00:00:00)")
    measured.set("experiments.plain.cpu", [{"label": ["b"]}])
    with measured.measuring("plain/b"):
        assert measured.measure().code == 0


# -- everything fails --------------------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_to_costs_no_record(measured: Copy) -> None:
    """A disk that is full: the kernel refuses every file over 64 bytes (`ulimit -f` counts in KiB)."""
    measured.set("experiments.plain.cpu", [{"label": ["b"]}])
    target = "results/here/plain/label~b.json"
    kept = measured.files()
    limited = f"trap '' XFSZ; ulimit -f 0; exec {json.dumps(measured.python_path)} -m stepbench measure plain label~b"
    done = measured.run("bash", "-c", limited)
    assert done.code != 0
    assert "File too large" in done.err
    assert measured.files() == kept
    assert measured.half_files() == []
    with measured.measuring("plain/b"):
        assert measured.snakemake(target).code == 0
