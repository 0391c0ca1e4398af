"""One run at a time in a folder: whoever comes second ends at once and names the first."""

import os

import psutil
from tests.workflow.bench_copy import Copy

BUSY_S = 2.0  # of processor time: on an idle machine that is what a user waits


def test_a_second_run_ends_and_names_the_first(measured: Copy) -> None:
    """With the same targets, with others, and through the second door."""
    measured.set("experiments.toy.cpu", [{"behaviour": ["fine", "gated"], "size": ["nano"]}])
    measured.make_gate()
    targets = measured.targets()
    run = measured.start("-m", "snakemake", "--cores", "1", *targets)
    cell = measured.wait_for_cell()
    with measured.measuring():
        ended = [
            measured.snakemake(*targets),
            measured.snakemake("results/here/toy/behaviour~fine,size~nano,replicate~9.json"),
            measured.python("-m", "stepbench", "measure", "plain", "label~b"),
        ]
    holder = f"another run (process {run.pid}, since "
    assert [done.code for done in ended] == [1, 1, 1]
    assert [[line[: len(holder)] for line in done.said] for done in ended] == [[holder]] * 3
    # Most of it is Snakemake's own start; its time grows with whoever shares the machine.
    looked = measured.snakemake("-n", *targets)
    assert looked.code == 0
    assert max(done.processor_s for done in ended[:2]) < 1.5 * looked.processor_s
    assert ended[2].processor_s < BUSY_S
    assert psutil.pid_exists(cell)
    measured.open_gate()
    assert run.wait(timeout=120) == 0
    assert set(measured.kinds().values()) == {"fresh"}


def test_of_twenty_at_the_same_instant_one_runs(measured: Copy) -> None:
    measured.make_gate()
    words = ("-m", "stepbench", "measure", "toy")
    for replicate in range(20):
        # Unbuffered, as in containers: a line in two writes would run into another process's line.
        measured.start(*words, f"behaviour~gated,replicate~{replicate}", PYTHONUNBUFFERED="1")
    cell = measured.wait_for_cell()
    winner = psutil.Process(cell).ppid()
    for process in measured.running:
        if process.pid != winner:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            assert process.returncode == 1
            assert used.ru_utime + used.ru_stime < BUSY_S
    output = measured.output.read_text()
    said = [line for line in output.splitlines() if line.startswith("stepbench: ")]
    assert len(said) == 19, output
    assert all(f"another run (process {winner}, since " in line for line in said)
    measured.open_gate()
    (running,) = (process for process in measured.running if process.pid == winner)
    assert running.wait(timeout=120) == 0
    assert sum(name.startswith("toy/gated") for name in measured.files()) == 1
