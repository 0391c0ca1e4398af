"""The specification of a step: what of a cell becomes part of it, and which groups there can be."""

from __future__ import annotations

import dataclasses
import json

import pytest

from stepbench.experiments.data_parallel.cell import Cell as DataParallel
from stepbench.experiments.memory.cell import Cell as Memory
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.models import costs
from stepbench.models.sizes import ModelSize
from stepbench.workloads.spec import OPTIMIZERS, StepSpec, group_sizes

SIZE = {"d_model": 32, "d_ff": 64, "layers": 4, "heads": 2}
SETTING = Setting(device="cpu", protocol={"seed": 0}, definition={"vocabulary": 20, "size": SIZE})


def test_a_cells_axes_become_fields_by_name() -> None:
    cell = Memory("measured", "tiny", 16, 2, "bf16", "bf16", attention="sdpa", groups="2-1", passes="forward")
    spec = StepSpec.of(cell, SETTING)
    assert spec == StepSpec(
        ModelSize(**SIZE), 20, 16, 2, "bf16", "bf16", attention="sdpa", groups=(2, 1), passes="forward"
    )


def test_a_sizes_own_vocabulary_comes_before_the_configurations() -> None:
    setting = dataclasses.replace(SETTING, definition={"vocabulary": 20, "size": {**SIZE, "vocabulary": 50}})
    spec = StepSpec.of(Memory("predicted", "tiny", 16, 2), setting)
    assert (spec.vocabulary, StepSpec.of(Memory("predicted", "tiny", 16, 2), SETTING).vocabulary) == (50, 20)
    assert spec.work()["parameters"] == costs.parameters(spec.size, 50)
    assert spec.work()["forward_flops"] == costs.forward_flops(spec.size, vocabulary=50, batch=2, context=16)
    assert StepSpec.of_plain(json.loads(json.dumps(spec.plain()))) == spec


def test_what_the_experiment_fixes_comes_before_the_cells_axes() -> None:
    cell = DataParallel("tiny", "bucketed", 16, bucket_mib=5, ranks=8)
    spec = StepSpec.of(cell, SETTING, batch=1, strategy="naive")
    assert (spec.strategy, spec.batch, spec.bucket_mib, spec.ranks) == ("naive", 1, 5, 8)


def test_a_specification_survives_json() -> None:
    cell = DataParallel("tiny", "bucketed", 16, attention="tiled", groups="4-2-1")
    spec = StepSpec.of(cell, SETTING)
    assert StepSpec.of_plain(json.loads(json.dumps(spec.plain()))) == spec


def test_there_is_one_default_optimizer() -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(StepSpec)}
    assert defaults["optimizer"] == "adamw_foreach"
    assert defaults["optimizer"] in OPTIMIZERS


@pytest.mark.parametrize(("text", "sizes"), [("none", ()), ("1", (1,)), ("12", (12,)), ("8-4-1", (8, 4, 1))])
def test_groups_of_any_depth(text: str, sizes: tuple[int, ...]) -> None:
    assert group_sizes(text, 12) == sizes


@pytest.mark.parametrize("text", ["13", "0", "04", "1-4", "4-4", "4-", "4--1", "", "None", "4-x"])
def test_groups_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(UnsupportedError, match="`groups` must be none, or falling numbers of blocks from 12 to 1"):
        group_sizes(text, 12)


def test_the_work_is_that_of_all_ranks_and_the_flops_those_of_one() -> None:
    spec = StepSpec(ModelSize(**SIZE), 20, context=16, batch=2, ranks=3)
    work = spec.work()
    assert work["tokens_per_step"] == 3 * 2 * 16
    assert work["parameters"] == costs.parameters(spec.size, 20)
    assert work["forward_flops"] == costs.forward_flops(spec.size, vocabulary=20, batch=2, context=16)
    assert work["backward_flops"] == 2 * work["forward_flops"]
