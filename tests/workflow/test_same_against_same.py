"""P9 and P11 with real processes: the same against the same is no difference, and what takes 20 % longer is slower.

The operation sleeps, so that it takes as long on a busy machine as on an idle one; it is timed by the real protocol.
"""

from collections.abc import Iterator

import pytest
from tests.workflow.bench_copy import CONFIG, Copy

from stepbench.reporting import statistics
from stepbench.reporting.statistics import Comparison, Verdict

PROCESSES = 5
SLEEPING = """    if behaviour in ("steady", "again", "slowed"):
        from stepbench.measure import timing
        from stepbench.measure.clock import HostClock

        seconds = 0.12 if behaviour == "slowed" else 0.10
        clock = HostClock(lambda: None, "host clock")
        return Measurement(samples={"step_s": timing.time_whole(lambda: time.sleep(seconds), clock=clock, repeats=5)})
"""
MEASURE_ALL = """
from pathlib import Path
from stepbench.pipeline.bench import RUN_LOCK, Bench
from stepbench.pipeline.state import States
from stepbench.process import lock, run
bench = Bench.open(Path.cwd())
lock.hold(bench.root / RUN_LOCK, "this folder")
for cell in bench.grid("toy"):
    print(cell.behaviour, cell.replicate, run.measure_cell(States(bench), cell).status)
"""


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Copy, str]]:
    copy = Copy.make(tmp_path_factory.mktemp("same") / "bench")
    copy.edit(
        "src/stepbench/models/toy_kernel.py",
        '    if behaviour == "raises":\n',
        f'{SLEEPING}    if behaviour == "raises":\n',
    )
    axes = {"behaviour": ["steady", "again", "slowed"], "replicate": list(range(PROCESSES))}
    copy.configure({**CONFIG, "experiments": {"toy": {"cpu": [axes]}}})
    done = copy.python("-c", MEASURE_ALL)
    assert done.code == 0, done.err
    yield copy, done.out
    copy.close()


def compared(copy: Copy, behaviour: str) -> Comparison:
    sides = [
        [copy.record(f"toy/{each},nano,{replicate}")["samples"]["step_s"] for replicate in range(PROCESSES)]
        for each in ("steady", behaviour)
    ]
    return statistics.compare(*map(statistics.medians, sides))


def test_what_is_compared_is_measured_in_turn(measured: tuple[Copy, str]) -> None:
    behaviours = ["steady", "again", "slowed"]
    expected = [f"{each} {replicate} ok" for replicate in range(PROCESSES) for each in behaviours]
    assert measured[1].splitlines() == expected


def test_one_real_run_of_the_same_against_the_same_finds_no_difference(measured: tuple[Copy, str]) -> None:
    assert compared(measured[0], "again").verdict in (Verdict.SAME, Verdict.UNCLEAR)


def test_one_real_run_finds_what_takes_a_fifth_longer(measured: tuple[Copy, str]) -> None:
    found = compared(measured[0], "slowed")
    assert found.verdict is Verdict.SLOWER
    assert found.ratio == pytest.approx(100 / 120, rel=0.05)
