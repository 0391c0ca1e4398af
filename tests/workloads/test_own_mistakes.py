"""Mistakes in models and kernels of one's own that only some experiments meet: one sentence that names the code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from stepbench.cli import main as command_line
from stepbench.experiments.attention import measure as attention
from stepbench.experiments.attention.cell import Cell as Attention
from stepbench.experiments.end_to_end import measure as end_to_end
from stepbench.experiments.end_to_end.cell import Cell as EndToEnd
from stepbench.experiments.fsdp import measure as fsdp
from stepbench.experiments.fsdp.cell import Cell as Fsdp
from stepbench.experiments.memory import measure as memory
from stepbench.experiments.memory.cell import Cell as Memory
from stepbench.measure.measurement import Setting
from stepbench.models import own_module
from stepbench.models.own import OwnModel
from stepbench.own_code import OwnCodeError
from stepbench.process import failures

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("my_models.py")
CONTEXT, BATCH = 16, 2
STEP = EndToEnd("mine", CONTEXT, BATCH)
NANO = {"d_model": 32, "d_ff": 48, "layers": 2, "heads": 2}


def setting(function: str, **more: Any) -> Setting:
    protocol = {"warmup_steps": 1, "measured_steps": 1, "seed": 0, "threads": 2}
    size = {"module": f"{FILE}:{function}", **more}
    return Setting(device="cpu", protocol=protocol, definition={"vocabulary": 97, "size": size})


def refused(experiment: Any, cell: Any, given: Setting) -> str:
    with pytest.raises(OwnCodeError) as caught:
        experiment.measure(cell, given)
    assert failures.kind_of(caught.value) == "own_code"
    return failures.sentence(caught.value)


def test_a_model_that_was_built_in_bf16_is_converted_with_its_ties() -> None:
    given = setting("in_bf16_and_tied")
    assert len(end_to_end.measure(STEP, given).samples["step_s"]) == 1
    scalars = memory.measure(Memory("measured", "mine", CONTEXT, BATCH), given).scalars
    assert scalars["predicted_peak_bytes"] == pytest.approx(scalars["peak_memory_bytes"], rel=0.01)
    model: Any = own_module.build(
        OwnModel(**given.definition["size"]),
        vocabulary=97,
        context=CONTEXT,
        attention=lambda *_, **__: torch.empty(0),
        dtype=torch.float32,
        device="cpu",
    )
    assert {each.dtype for each in model.parameters()} == {torch.float32}
    assert model.module.head.weight is model.module.embedding.weight


def test_a_model_on_meta_has_no_values() -> None:
    told = refused(end_to_end, STEP, setting("on_meta"))
    assert told.startswith(f"`{FILE}:on_meta` must build parameters and buffers that have values, ")
    assert told.endswith("got some on meta")


def test_what_exits_is_named() -> None:
    assert refused(end_to_end, STEP, setting("exits")) == f"`{FILE}:exits` raised SystemExit: usage: my_models.py"


@pytest.mark.parametrize("source", ["predicted", "measured"])
def test_what_fsdp_cannot_shard_is_said_with_the_model_and_the_key(source: Any) -> None:
    cell = Fsdp(source, "mine", "fsdp", CONTEXT, BATCH)
    told = refused(fsdp, cell, setting("with_loss", sharded=["Linear", "Embeding"]))
    assert told.startswith(f"`sharded` of `{FILE}:with_loss` must name classes of its modules, got Embeding; ")
    assert told.endswith("those with parameters are Embedding, Linear")
    told = refused(fsdp, cell, setting("without_modules"))
    assert told.startswith(f"`{FILE}:without_modules` must have matrices in modules of the classes Linear, Embedding, ")
    assert told.endswith("or `sharded` in config.yaml must name others; those with parameters are WithoutModules")


def test_more_blocks_in_a_group_than_there_are_are_refused() -> None:
    sentence = f"`{FILE}:mixer` has 3 blocks, so that `groups` must begin with at most 3, got 9-1"
    assert refused(end_to_end, EndToEnd("mine", CONTEXT, BATCH, groups="9-1"), setting("mixer")) == sentence
    for source in ("predicted", "measured"):
        cell: Any = Fsdp(source, "mine", "fsdp", CONTEXT, BATCH, groups="9-1")  # type: ignore[arg-type]
        assert refused(fsdp, cell, setting("mixer")) == sentence


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("kernel_that_raises", "raised RuntimeError: a bug of mine"),
        ("kernel_without_scale", "raised TypeError: kernel_without_scale() got an unexpected keyword argument 'scale'"),
        ("kernel_without_gradient", "must return what q, k and v have a gradient of, got no gradient"),
        ("kernel_that_raises_backward", "raised ValueError: no backward pass yet"),
        (
            "kernel_that_downloads",
            "must not use the network, because a measurement must be the same everywhere, and it tried to reach "
            "example.com",
        ),
    ],
)
def test_a_mistake_in_a_kernel_names_it(function: str, sentence: str) -> None:
    given = setting("mixer")
    definition = {"vocabulary": 97, "size": NANO, "kernel": {"function": f"{FILE}:{function}"}}
    given = Setting(device="cpu", protocol=given.protocol, definition=definition)
    for experiment, cell in (
        (end_to_end, EndToEnd("nano", CONTEXT, BATCH, attention="mine")),
        (attention, Attention("mine", seq=32, head_dim=16, heads=2)),
    ):
        assert refused(experiment, cell, given) == f"`{FILE}:{function}` {sentence}"


def test_a_step_with_a_kernel_of_ones_own_is_compiled_whole() -> None:
    definition = {"vocabulary": 97, "size": NANO, "kernel": {"function": f"{FILE}:kernel"}}
    given = Setting(device="cpu", protocol=setting("mixer").protocol, definition=definition)
    cell = EndToEnd("nano", CONTEXT, BATCH, attention="mine", implementation="compiled")
    assert end_to_end.measure(cell, given).samples["step_s"]


def test_the_command_tells_a_wrong_kernel_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    own = f"attention={{mine: '{FILE}:twice_the_scale'}}"
    words = ["--root", str(ROOT), "fits", "--size", "nano", "--context", "64", "--attention", "mine"]
    assert command_line.main([*words, "--config", "device=cpu", "--config", own]) == 2
    assert "o must be within" in capsys.readouterr().err
