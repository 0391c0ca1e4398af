"""Contexts that nobody ran: those that a model does not have, and those predicted from shorter ones."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from stepbench.experiments.end_to_end import measure as end_to_end
from stepbench.experiments.end_to_end.cell import Cell as EndToEnd
from stepbench.experiments.fits.cell import Cell as Fits
from stepbench.experiments.memory import measure as memory
from stepbench.experiments.memory.cell import Cell as Memory
from stepbench.measure.envelope import Envelope
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.models.own import OwnModel
from stepbench.own_code import OwnCodeError
from stepbench.versions import FakeTensorMode
from stepbench.workloads import examined, fits, predicted
from stepbench.workloads.lookups import BeyondTableError, Lookups
from stepbench.workloads.spec import StepSpec

FILE = Path(__file__).with_name("my_models.py")
VOCABULARY, POSITIONS = 97, 64


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from transformers import GPT2Config

    folder = tmp_path_factory.mktemp("gpt2")
    GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=POSITIONS).save_pretrained(folder)
    return {"hf": str(folder / "config.json")}


def own(function: str) -> dict[str, Any]:
    return {"module": f"{FILE}:{function}"}


def setting(model: dict[str, Any]) -> Setting:
    protocol = {"warmup_steps": 1, "measured_steps": 1, "seed": 0, "threads": 2}
    return Setting(device="cpu", protocol=protocol, definition={"vocabulary": VOCABULARY, "size": model})


def found(model: dict[str, Any], **more: Any) -> tuple[Envelope, StepSpec]:
    spec = StepSpec.of(Fits("predicted", "mine", **more), setting(model), batch=1, context=1)
    return fits.find(spec, setting(model)), spec


def peak_bytes(spec: StepSpec, model: dict[str, Any], batch: int, context: int) -> int:
    whole = dataclasses.replace(spec, batch=batch, context=context)
    return predicted.predict(whole, setting(model)).scalars()["peak_memory_bytes"]


def test_a_configs_positions_are_the_longest_context(gpt2: dict[str, Any]) -> None:
    assert found(gpt2)[0].largest_context(1, 2**40) == POSITIONS
    assert found(gpt2, ranks=2)[0].largest_context(1, 2**40) == POSITIONS


def test_positions_of_a_module_are_the_longest_context() -> None:
    assert found(own("positions"))[0].largest_context(1, 2**40) == 32
    assert examined.most_context(OwnModel(module=f"{FILE}:with_loss"), vocabulary=VOCABULARY) is None


@pytest.mark.parametrize("source", ["predicted", "measured"])
def test_a_context_that_a_model_does_not_have_is_refused_in_one_sentence(gpt2: dict[str, Any], source: Any) -> None:
    for model, sentence in (
        (gpt2, "index 127 is out of bounds of a table of 64 rows"),
        (own("positions"), ":positions` must run at a context of 128, and there index 127 is out of bounds of a table"),
    ):
        for experiment, cell in ((memory, Memory(source, "mine", 128, 2)), (end_to_end, EndToEnd("mine", 128, 2))):
            with pytest.raises(OwnCodeError) as caught:
                experiment.measure(cell, setting(model))
            assert sentence in str(caught.value)


def test_a_model_that_needs_values_is_tried_at_the_cells_context() -> None:
    assert len(end_to_end.measure(EndToEnd("mine", 32, 2), setting(own("positions_and_values"))).samples["step_s"]) == 1
    with pytest.raises(OwnCodeError, match=r":positions_and_values` raised IndexError: index out of range in self"):
        end_to_end.measure(EndToEnd("mine", 33, 2), setting(own("positions_and_values")))


def test_a_context_above_what_a_config_names_is_refused_where_it_is_not_learned(tmp_path: Path) -> None:
    from transformers import LlamaConfig

    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=POSITIONS, **small).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError, match=r"config.json` has 64 positions, got a context of 128"):
        end_to_end.measure(EndToEnd("mine", 128, 2), setting({"hf": str(tmp_path / "config.json")}))


def test_a_quadratic_polynomial_of_the_context_is_told_exactly() -> None:
    envelope, spec = found(own("sink"))
    for batch, context in ((3, 100), (2, 4096), (8, 8192)):
        assert envelope.peak_bytes(batch, context) == pytest.approx(
            peak_bytes(spec, own("sink"), batch, context), rel=1e-3
        )


def test_what_is_no_quadratic_polynomial_is_refused() -> None:
    with pytest.raises(UnsupportedError, match=r"cubic` cannot be predicted from smaller steps: at batch 5"):
        found(own("cubic"))


def test_look_ups_by_every_operator_are_held_against_their_table() -> None:
    for look_up in (
        lambda table, at: torch.nn.functional.embedding(at, table),
        lambda table, at: table[at],
        lambda table, at: table.index_select(0, at),
        lambda table, at: table.gather(0, at[:, None]),
    ):
        with FakeTensorMode(), Lookups():
            table = torch.randn(8, 4)
            look_up(table, torch.arange(10)[2:8])
            look_up(table, torch.arange(8).flip(0))
            with pytest.raises(BeyondTableError, match="index 8 is out of bounds of a table of 8 rows"):
                look_up(table, torch.arange(7) + 2)


def test_what_is_not_known_is_not_refused() -> None:
    with FakeTensorMode(), Lookups():
        table = torch.randn(8, 4)
        assert table[table.argmax(0) + 100].shape == (4, 4)
        counted = torch.arange(4)
        counted.copy_(table[0])  # known no longer
        assert table[counted + 100].shape == (4, 4)
