"""The presets of the epoch benchmark: what can be built, and the counts, held against the module itself."""

import dataclasses
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from stepbench.models.decoder import next_token_loss
from stepbench.models.encoder_decoder import EncoderDecoder
from stepbench.models.presets import Preset, parameters, step_flops

# The presets of the default config.yaml, and their parameters in millions.
TABLE = {"3.5M": 3.5, "60M": 59.4, "220M": 221.3, "2.9B": 2880.3}
PRESETS = yaml.safe_load(Path(__file__).parents[2].joinpath("config.yaml").read_text(encoding="utf-8"))["presets"]


def two_products(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, is_causal: bool) -> torch.Tensor:
    return (q @ k.transpose(-1, -2)).softmax(-1) @ v


@pytest.mark.parametrize("name", TABLE)
def test_parameters_are_those_that_the_name_promises_and_those_of_the_module(name: str) -> None:
    preset = Preset.from_config(name, PRESETS[name])
    count = parameters(preset)
    assert round(count / 1e6, 1) == TABLE[name]
    named = float(name[:-1]) * {"M": 1e6, "B": 1e9}[name[-1]]
    assert abs(count / named - 1) < 0.011
    model = EncoderDecoder(preset, attention=two_products, device="meta")
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_there_is_no_other_preset() -> None:
    assert PRESETS.keys() == TABLE.keys()


@pytest.mark.parametrize("name", ["3.5M", "60M"])
def test_flops_are_what_torch_counts(name: str) -> None:
    preset = Preset.from_config(name, PRESETS[name])
    model = EncoderDecoder(preset, attention=two_products, device="meta")
    tokens = torch.zeros(2, 48, dtype=torch.int64, device="meta")
    with FlopCounterMode(display=False) as counted:
        next_token_loss(model(tokens, tokens), tokens).backward()
    # The first blocks' inputs are the embeddings' outputs, which have gradients too: nothing is left out.
    assert counted.get_total_flops() == step_flops(preset, batch=2, context=48)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"heads": 3}, "`presets.x.heads` must divide d_model (128), got 3"),
        ({"encoder_layers": 0}, "`presets.x.encoder_layers` must be a positive integer, got 0"),
        ({"vocabulary": True}, "`presets.x.vocabulary` must be a positive integer, got True"),
        ({"vocabulary": 65_537}, "`presets.x.vocabulary` must be at most 65536, got 65537"),
        ({"layers": 3}, "`presets.x` must hold only the fields"),
    ],
)
def test_a_preset_that_cannot_be_built_is_refused(change: dict[str, object], problem: str) -> None:
    with pytest.raises(ValueError, match="`presets") as caught:
        Preset.from_config("x", PRESETS["3.5M"] | change)
    assert str(caught.value).startswith(problem)


def test_a_preset_is_checked_wherever_it_comes_from() -> None:
    good = Preset.from_config("x", PRESETS["3.5M"])
    with pytest.raises(ValueError, match="`heads` must divide"):
        dataclasses.replace(good, heads=7)
