"""What the ranks of `test_on_ranks.py` run, and how they fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import distributed

from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.parallel.naive import NaiveDDP
from stepbench.workloads import equivalence, training_on_ranks
from stepbench.workloads.spec import StepSpec


def misbehave(*, setting: dict[str, Any], how: str) -> dict[str, Any]:
    """Fail as rank 1; rank 0 waits for it in an all-reduce."""
    if distributed.get_rank() == 1:
        fault(how)
    distributed.all_reduce(torch.ones(1))
    return setting


def fault(how: str) -> None:
    """Raise."""
    if how == "unsupported":
        raise UnsupportedError("a rank needs a unit: it has none\nand says so at length")
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1024.00 GiB")


def run_without_synchronization(*, setting: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """Do what a cell's ranks do, with a strategy that leaves each rank its own gradients."""
    NaiveDDP._finish = WRONG["nothing synchronised"]  # type: ignore[method-assign]
    return training_on_ranks.run(setting=setting, spec=spec)


def check_what_is_wrong(*, setting: dict[str, Any], specs: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return by name how the check of each wrong strategy refused it; an empty text where it did not."""
    refusals = {}
    for wrong, finish in WRONG.items():
        NaiveDDP._finish = finish  # type: ignore[method-assign]
        for name, spec in specs.items():
            try:
                equivalence.check(StepSpec.of_plain(spec), Setting(**setting))
                refusals[f"{wrong}: {name}"] = ""
            except ArithmeticError as error:
                refusals[f"{wrong}: {name}"] = str(error)
    return refusals


def _sum(strategy: NaiveDDP) -> None:
    """Add up where the mean was wanted: an optimizer that divides by the gradient's size would not tell."""
    for parameter in strategy.module.parameters():
        distributed.all_reduce(parameter.grad)


def _all_but(left: Callable[[int, str], bool]) -> Callable[[NaiveDDP], None]:
    def finish(strategy: NaiveDDP) -> None:
        for number, (name, parameter) in enumerate(strategy.module.named_parameters()):
            if not left(number, name):
                distributed.all_reduce(parameter.grad)
                parameter.grad /= distributed.get_world_size()

    return finish


WRONG: dict[str, Callable[[NaiveDDP], None]] = {
    "nothing synchronised": lambda _: None,
    "a sum for a mean": _sum,
    "the first parameter left alone": _all_but(lambda number, _: number == 0),
    "norms left alone": _all_but(lambda _, name: "norm" in name),
}
