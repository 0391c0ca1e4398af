"""One rung, really measured: both steps are timed, and the rung's is the model's."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace

import pytest

from stepbench import versions
from stepbench.experiments.ladder.cell import Cell
from stepbench.experiments.ladder.measure import measure
from stepbench.measure import energy
from stepbench.measure.measurement import Setting, UnsupportedError, WrongResultError
from stepbench.workloads import decoders, step
from stepbench.workloads.spec import StepSpec

SIZE = {"d_model": 32, "d_ff": 64, "layers": 2, "heads": 2}
CELL = Cell("tiny", 16, "r", batch=2)


def setting(rung: dict[str, object], **kept: dict[str, object]) -> Setting:
    return Setting(
        device="cpu",
        protocol={"warmup_steps": 1, "measured_steps": 2, "seed": 0, "threads": 1},
        definition={"vocabulary": 50, "size": SIZE, "rung": rung, "kept": kept},
    )


@pytest.mark.parametrize("replicate", [0, 1])
def test_a_rung_is_timed_beside_the_fastest_step_so_far(replicate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[StepSpec] = []
    build = step.build
    monkeypatch.setattr(step, "build", lambda spec, *rest, **more: (built.append(spec), build(spec, *rest, **more))[1])
    cell = Cell("tiny", 16, "r", batch=2, replicate=replicate)
    found = measure(cell, setting({"batch": 4, "head": "chunked"}, s={"attention": "sdpa"}))
    timed = built[:2] if replicate == 0 else built[1::-1]
    assert [(each.attention, each.head, each.batch, each.optimizer) for each in timed] == [
        ("sdpa", "whole", 2, "adamw_loop"),
        ("sdpa", "chunked", 4, "adamw_loop"),
    ]
    assert len(found.samples["step_s"]) == len(found.samples["base_s"]) == 2
    assert (found.scalars["tokens_per_step"], found.scalars["base_tokens_per_step"]) == (64, 32)
    assert found.scalars["least_flops"] == 2 * found.scalars["base_least_flops"]
    assert found.details["kept"] == ["s"]
    assert found.protocol["order"] == ("base first" if replicate == 0 else "base second")
    if replicate == 0:
        assert found.scalars["predicted_peak_bytes"] > found.scalars["base_predicted_peak_bytes"]


def test_a_kernel_of_ones_own_is_a_rung_and_may_be_kept() -> None:
    kernels = {"mine": {"function": f"{Path(__file__).parents[1]}/workloads/my_models.py:kernel"}}
    own = setting({"attention": "mine"})
    found = measure(CELL, dataclasses.replace(own, definition=own.definition | {"kernels": kernels}))
    assert found.protocol["attention"] == kernels["mine"]["function"]
    assert found.details["step"]["attention"] == "mine"
    above = setting({"optimizer": "adamw_foreach"}, a={"attention": "mine"})
    found = measure(CELL, dataclasses.replace(above, definition=above.definition | {"kernels": kernels}))
    assert found.protocol["attention"] == kernels["mine"]["function"]


def test_the_rungs_step_has_its_energy_where_it_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    counter = SimpleNamespace(name="a counter", least_s=0.0, joules=lambda: 3.0 * next(ticks))
    monkeypatch.setattr(energy, "counter_of", lambda _: counter)
    found = measure(CELL, setting({"head": "chunked"}))
    assert found.scalars["step_energy_joules"] == 3.0  # it moves when it is read, once a step
    assert len(found.samples["step_s"]) == 2


def test_what_the_device_cannot_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match="CUDA graphs need a CUDA device, got cpu"):
        measure(CELL, setting({"implementation": "captured"}))
    monkeypatch.setattr(versions, "cpu_has_bf16_units", lambda: False)
    with pytest.raises(UnsupportedError, match="bf16 is a rung where the CPU has units for it"):
        measure(CELL, setting({"precision": "bf16"}))


def test_a_rung_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from stepbench.kernels.heads import whole

    bind = decoders.heads.bind
    monkeypatch.setattr(
        decoders.heads,
        "bind",
        lambda name: bind(name) if name == "whole" else lambda x, w, t: 1.01 * whole.loss(x, w, t),
    )
    with pytest.raises(WrongResultError, match="the first loss must be within"):
        measure(CELL, setting({"head": "chunked"}))
