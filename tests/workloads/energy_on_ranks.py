"""What the ranks of `test_rank_energy.py` run: steps of 1 ms, and counters that a test gives."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from torch import distributed

from stepbench.measure import energy
from stepbench.measure.measurement import Setting
from stepbench.workloads import rank_energy


class Step:
    """A step that waits for the other ranks, as one with collectives does."""

    def __init__(self) -> None:
        self.calls = 0

    def start_over(self) -> None:
        self.calls = 0

    def run(self) -> None:
        self.calls += 1
        time.sleep(1e-3)
        distributed.barrier()


def count(*, watts: dict[str, list[float | None]]) -> dict[str, Any]:
    """Return for each case what this rank told of the energy of a step, and how many steps it ran.

    Args:
        watts: case -> of each rank's counter; None where there is none, 0 where it stands.
    """
    found: dict[str, Any] = {}
    for case, of_ranks in watts.items():
        mine = of_ranks[distributed.get_rank()]
        counter = None if mine is None else SimpleNamespace(
            name="a counter", least_s=0.1, joules=lambda mine=mine: mine * time.perf_counter()
        )  # fmt: skip
        energy.counter_of = lambda *_, counter=counter: counter  # type: ignore[assignment]
        step: Any = Step()
        told = rank_energy.of_step(step, SimpleNamespace(traffic=[]), Setting("cpu", {}), step_s=1e-3)  # type: ignore[arg-type]
        found[case] = {"told": told, "calls": step.calls}
    return found
