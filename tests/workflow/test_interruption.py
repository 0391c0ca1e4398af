"""A run that is killed, interrupted or told to end: nobody is left, nothing is half done, and the next one goes on."""

import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.processes import gone
from tests.workflow.bench_copy import REPOSITORY, Copy

STOPPED_S = 3.0
SLACK_S = 12.0  # other workers, and whoever else, share this machine; by itself Snakemake would wait for ever


def waiting(copy: Copy, behaviour: str = "gated") -> None:
    """Add one cell that waits to what has been measured."""
    copy.set("experiments.toy.cpu", [{"behaviour": ["fine", behaviour], "size": ["nano"]}])
    copy.make_gate()


def go_on(copy: Copy, kept: dict[str, tuple[int, bytes]], behaviour: str = "gated") -> None:
    """Run again and assert that only the cell that waited is measured."""
    again = copy.start("-m", "snakemake", "--cores", "1", *copy.targets())  # needs no hand
    copy.wait_for_cell()
    copy.open_gate()
    assert again.wait(timeout=120) == 0
    assert {name for name in copy.files() if name not in kept} == {f"toy/{behaviour},nano,0"}
    assert all(copy.files()[name] == file for name, file in kept.items())
    assert set(copy.kinds().values()) == {"fresh"}


# -- killed ------------------------------------------------------------------------------------------------------------


def test_a_run_that_is_killed_leaves_nobody_and_nothing_half_done(measured: Copy) -> None:
    kill_and_go_on(measured, "run")


def test_a_run_whose_whole_group_is_killed_leaves_nobody_and_nothing_half_done(measured: Copy) -> None:
    """As when the power fails."""
    kill_and_go_on(measured, "group")


def test_a_jobs_script_that_is_killed_leaves_nobody_and_nothing_half_done(measured: Copy) -> None:
    kill_and_go_on(measured, "script")


def kill_and_go_on(measured: Copy, victim: str) -> None:
    """Kill the run while a cell waits, look at what is left, and run again."""
    waiting(measured)
    kept = measured.files()
    run = measured.start("-m", "snakemake", "--cores", "1", *measured.targets())
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
    go_on(measured, kept)


def test_no_cell_runs_twice_at_once(measured: Copy) -> None:
    """The next run begins in the moment in which the first is killed."""
    waiting(measured)
    words = ("-m", "snakemake", "--cores", "1", *measured.targets())
    run = measured.start(*words)
    first = measured.wait_for_cell()
    run.kill()
    again = measured.start(*words)
    second = measured.wait_for_cell()
    assert gone([first], within_s=0)
    assert psutil.pid_exists(second)
    measured.open_gate()
    assert again.wait(timeout=120) == 0
    assert measured.record("toy/gated,nano,0")["scalars"]["pid"] == second


def test_a_dead_runs_lock_is_no_lock(measured: Copy) -> None:
    lock = measured.root / ".stepbench/run.lock"
    lock.parent.mkdir(exist_ok=True)
    lock.write_text('{"process": 1, "since": "2020-01-01 00:00:00"}')
    measured.set("experiments.plain.cpu", [{"label": ["b"]}])
    with measured.measuring("plain/b"):
        assert measured.measure().code == 0


# -- interrupted -------------------------------------------------------------------------------------------------------


def start(copy: Copy, door: str, behaviour: str) -> int:
    """Start a run by one of the doors, wait until its cell has begun, and return that cell's process."""
    if door == "make":
        (copy.root / "Makefile").write_text((REPOSITORY / "Makefile").read_text())
        words = ("--old-file", ".venv/.report", "REPORT=.venv/.report", f"BIN={Path(sys.executable).parent}", "report")
        copy.start(*words, program="make")
    elif door == "snakemake":
        copy.start("-m", "snakemake", "--cores", "1", *copy.targets())
    else:
        copy.start("-m", "stepbench", "measure", "toy", f"behaviour~{behaviour}")
    return copy.wait_for_cell()


@pytest.mark.parametrize(("door", "code"), [("snakemake", 130), ("make", -signal.SIGINT), ("stepbench", 130)])
def test_ctrl_c_ends_a_run_which_says_how_to_go_on(measured: Copy, door: str, code: int) -> None:
    """A terminal sends it to all in the foreground; the cell is deaf to what it is told; make itself dies of it."""
    waiting(measured, "deaf")
    kept = measured.files()
    start(measured, door, "deaf")
    caused = [process.pid for process in measured.processes()]
    begin = time.monotonic()
    os.killpg(measured.running[-1].pid, signal.SIGINT)
    assert measured.running[-1].wait(timeout=60) == code
    assert time.monotonic() - begin < STOPPED_S + SLACK_S
    assert gone(caused, within_s=SLACK_S)
    said = measured.output.read_text()
    assert "stepbench: stopped by SIGINT; finished cells are kept, rerun the same command to resume\n" in said
    assert "Traceback" not in said
    assert measured.files() == kept
    assert measured.half_files() == []


@pytest.mark.ranks
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_run_ends_within_three_seconds_on_an_idle_machine(measured: Copy, sign: signal.Signals) -> None:
    waiting(measured, "deaf")
    start(measured, "snakemake", "deaf")
    caused = [process.pid for process in measured.processes()]
    os.killpg(measured.running[-1].pid, sign)
    assert gone(caused, within_s=STOPPED_S)
    assert measured.running[-1].wait(timeout=60) == 128 + sign


@pytest.mark.parametrize("door", ["snakemake", "stepbench"])
def test_a_run_that_is_told_to_end_stops_its_cell_and_the_next_one_repeats_only_that(measured: Copy, door: str) -> None:
    """Only the run's own process is told, as by a batch system whose time is over."""
    waiting(measured)
    kept = measured.files()
    start(measured, door, "gated")
    caused = [process.pid for process in measured.processes()]
    begin = time.monotonic()
    measured.running[-1].terminate()
    assert measured.running[-1].wait(timeout=60) == 128 + signal.SIGTERM
    assert time.monotonic() - begin < STOPPED_S + SLACK_S
    assert gone(caused, within_s=SLACK_S)
    assert "stepbench: stopped by SIGTERM; finished cells are kept" in measured.output.read_text()
    assert measured.files() == kept
    assert measured.half_files() == []
    if door == "snakemake":
        go_on(measured, kept)
