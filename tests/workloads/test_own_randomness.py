"""Models of one's own that draw random numbers in evaluation mode: they would hide a wrong step, and are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stepbench.experiments.data_parallel import measure as data_parallel
from stepbench.experiments.data_parallel.cell import Cell as DataParallel
from stepbench.experiments.end_to_end import measure as end_to_end
from stepbench.experiments.end_to_end.cell import Cell as EndToEnd
from stepbench.experiments.memory import measure as memory
from stepbench.experiments.memory.cell import Cell as Memory
from stepbench.measure.measurement import Setting, WrongResultError
from stepbench.own_code import OwnCodeError
from stepbench.process import failures

FILE = Path(__file__).with_name("my_models.py")
CONTEXT, BATCH = 16, 2
TWO_LOSSES = "must return the same loss for the same tokens in evaluation mode, got "


def setting(function: str) -> Setting:
    protocol = {"warmup_steps": 1, "measured_steps": 1, "seed": 0, "threads": 2}
    return Setting("cpu", protocol, {"vocabulary": 97, "size": {"module": f"{FILE}:{function}"}})


@pytest.mark.parametrize("function", ["drops", "drops_and_needs_values"])
@pytest.mark.parametrize(
    ("experiment", "cell"),
    [
        (end_to_end, EndToEnd("mine", CONTEXT, BATCH)),
        (memory, Memory("predicted", "mine", CONTEXT, BATCH)),
        (data_parallel, DataParallel("mine", "flat", CONTEXT, BATCH)),
    ],
)
def test_dropout_that_ignores_the_mode_is_refused(experiment: Any, cell: Any, function: str) -> None:
    with pytest.raises(OwnCodeError) as caught:
        experiment.measure(cell, setting(function))
    told = failures.sentence(caught.value)
    assert told.startswith(f"`{FILE}:{function}` {TWO_LOSSES}")
    assert "; random numbers come from aten." in told
    assert failures.kind_of(caught.value) == "own_code"


def test_ranks_refuse_what_draws_without_an_operator_of_torch() -> None:
    with pytest.raises(Exception, match=TWO_LOSSES) as caught:
        data_parallel.measure(DataParallel("mine", "flat", CONTEXT, BATCH), setting("drops_by_python"))
    assert failures.failure(failures.kind_of(caught.value), "")["status"] == "unsupported"


def test_a_loss_that_is_no_number_is_not_two_losses() -> None:
    with pytest.raises(WrongResultError, match="the loss must be finite, got nan"):
        end_to_end.measure(EndToEnd("mine", CONTEXT, BATCH), setting("drops_nothing"))


def test_random_numbers_that_are_always_the_same_are_none() -> None:
    assert end_to_end.measure(EndToEnd("mine", CONTEXT, BATCH), setting("seeded")).samples["step_s"]
