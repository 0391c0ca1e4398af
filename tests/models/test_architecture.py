"""The architectures that are built in, against transformers' own classes with the same random weights."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.models.test_decoder import Float32AsFloat64
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from stepbench.kernels import api
from stepbench.models.architecture import Architecture
from stepbench.models.costs import backward_flops, forward_flops, parameters
from stepbench.models.decoder import Decoder, next_token_loss
from stepbench.models.sizes import ModelSize, ShapeError

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "config.yaml").read_text(encoding="utf-8"))
SCALING = {"factor": 8.0, "low_frequency_factor": 1.0, "high_frequency_factor": 4.0, "original_context": 64}
SHAPE: dict[str, Any] = {"d_model": 48, "d_ff": 80, "layers": 2, "heads": 4, "vocabulary": 97}
TINY = {
    "llama": Architecture(**SHAPE, key_heads=2, rope_base=500.0, rope_scaling=SCALING),  # type: ignore[arg-type]
    "qwen3": Architecture(**SHAPE, key_heads=2, head_dim=16, qk_norm=True, tied=True, eps=1e-6, rope_base=1e4),
    "gpt2": Architecture(**SHAPE, architecture="gpt2", tied=True, positions=128),
}
# Ours -> transformers'; `{}` is the number of a block.
LLAMA = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "blocks.{}.attention_norm": "model.layers.{}.input_layernorm",
    "blocks.{}.attention.query": "model.layers.{}.self_attn.q_proj",
    "blocks.{}.attention.key": "model.layers.{}.self_attn.k_proj",
    "blocks.{}.attention.value": "model.layers.{}.self_attn.v_proj",
    "blocks.{}.attention.output": "model.layers.{}.self_attn.o_proj",
    "blocks.{}.attention.query_norm": "model.layers.{}.self_attn.q_norm",
    "blocks.{}.attention.key_norm": "model.layers.{}.self_attn.k_norm",
    "blocks.{}.feed_forward_norm": "model.layers.{}.post_attention_layernorm",
    "blocks.{}.feed_forward.gate": "model.layers.{}.mlp.gate_proj",
    "blocks.{}.feed_forward.up": "model.layers.{}.mlp.up_proj",
    "blocks.{}.feed_forward.down": "model.layers.{}.mlp.down_proj",
}
GPT2 = {
    "embedding": "transformer.wte",
    "positions": "transformer.wpe",
    "norm": "transformer.ln_f",
    "blocks.{}.attention_norm": "transformer.h.{}.ln_1",
    "blocks.{}.attention.output": "transformer.h.{}.attn.c_proj",
    "blocks.{}.feed_forward_norm": "transformer.h.{}.ln_2",
    "blocks.{}.up": "transformer.h.{}.mlp.c_fc",
    "blocks.{}.down": "transformer.h.{}.mlp.c_proj",
}
TRANSPOSED = ("attn.c_proj", "mlp.c_fc", "mlp.c_proj")  # transformers' Conv1D keeps [inputs, outputs]


def config_of(name: str, shape: Architecture) -> Any:
    """Return transformers' configuration of the same model."""
    from transformers import GPT2Config, LlamaConfig, Qwen3Config

    if shape.architecture == "gpt2":
        return GPT2Config(
            vocab_size=shape.vocabulary,
            n_positions=shape.positions,
            n_embd=shape.d_model,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_inner=shape.d_ff,
            tie_word_embeddings=shape.tied,
            attn_implementation="eager",
        )
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": shape.rope_base}
    if (scaling := shape.rope_scaling) is not None:
        rope |= {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_frequency_factor,
            "high_freq_factor": scaling.high_frequency_factor,
            "original_max_position_embeddings": scaling.original_context,
        }
    return (Qwen3Config if shape.qk_norm else LlamaConfig)(
        vocab_size=shape.vocabulary,
        hidden_size=shape.d_model,
        intermediate_size=shape.d_ff,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads,
        head_dim=shape.head_dim,
        rms_norm_eps=shape.eps,
        rope_parameters=rope,
        max_position_embeddings=131_072,
        tie_word_embeddings=shape.tied,
        attn_implementation="eager",
    )


def theirs(name: str, shape: Architecture) -> nn.Module:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_config(config_of(name, shape))


def in_their_names(model: Decoder) -> dict[str, Tensor]:
    """Return the weights of a decoder as transformers names and lays them out."""
    ours = {name: parameter.detach() for name, parameter in model.named_parameters(remove_duplicate=False)}
    found: dict[str, Tensor] = {}
    gpt2 = model.size.architecture == "gpt2"
    for name, weight in ours.items():
        prefix, _, last = name.rpartition(".")
        number = re.search(r"\d+", prefix)
        key = prefix if number is None else prefix.replace(number[0], "{}", 1)
        mapped = (GPT2 if gpt2 else LLAMA).get(key)
        if mapped is not None:
            other = mapped.format(number[0] if number else "")
            found[f"{other}.{last}"] = weight.t() if last == "weight" and other.endswith(TRANSPOSED) else weight
    if gpt2:
        found["lm_head.weight"] = ours["head.weight"]
        for layer in range(model.size.layers):
            for last in ("weight", "bias"):
                parts = [ours[f"blocks.{layer}.attention.{part}.{last}"] for part in ("query", "key", "value")]
                found[f"transformer.h.{layer}.attn.c_attn.{last}"] = torch.cat(parts).t()
    return found


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("context", [1, 17, 100])
def test_logits_and_the_gradient_of_the_embedding_agree_with_transformers_in_float64(name: str, context: int) -> None:
    shape = TINY[name]
    torch.manual_seed(0)
    model = Decoder(shape, vocabulary=97, attention=api.bind("naive"), dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.15 + (parameter.dim() == 1))
    tokens = torch.randint(97, (2, context + 1), generator=torch.Generator().manual_seed(1))
    with Float32AsFloat64():
        reference = theirs(name, shape).double().eval()
        reference.load_state_dict(in_their_names(model))
        expected = reference(input_ids=tokens[:, :-1], use_cache=False).logits
        F.cross_entropy(expected.flatten(0, 1), tokens[:, 1:].flatten()).backward()
    logits = model(tokens[:, :-1])
    next_token_loss(logits, tokens[:, 1:]).backward()
    assert expected.std() > 0.5
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)
    gradient = reference.get_input_embeddings().weight.grad
    torch.testing.assert_close(model.embedding.weight.grad, gradient, rtol=0, atol=1e-9)


PUBLISHED = {
    "gpt2": 124_439_808,
    "gpt2-xl": 1_557_611_200,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.1-8b": 8_030_261_248,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "leaderboard-8b": 8_125_698_048,
}


def test_the_models_that_ship_are_those_of_the_table() -> None:
    assert CONFIG["models"].keys() == PUBLISHED.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_parameters_of_a_model_that_ships_are_those_of_transformers(name: str) -> None:
    shape = Architecture.from_config(name, CONFIG["models"][name])
    vocabulary = shape.vocabulary
    assert vocabulary is not None
    with torch.device("meta"):
        reference = theirs(name, shape)
        model = Decoder(shape, vocabulary=vocabulary, attention=api.bind("naive"))
    counted = sum(each.numel() for each in model.parameters())
    assert counted == parameters(shape, vocabulary) == sum(each.numel() for each in reference.parameters())
    assert counted == PUBLISHED[name]


@pytest.mark.parametrize("name", TINY)
def test_flops_are_what_torch_counts(name: str) -> None:
    shape = TINY[name]
    with torch.device("meta"):
        model = Decoder(shape, vocabulary=97, attention=api.bind("naive"))
        tokens = torch.zeros(2, 12, dtype=torch.int64)
    cost = {"vocabulary": 97, "batch": 2, "context": 12}
    with FlopCounterMode(display=False) as forward:
        logits = model(tokens)
    with FlopCounterMode(display=False) as backward:
        next_token_loss(logits, tokens).backward()
    assert forward.get_total_flops() == forward_flops(shape, **cost)
    assert backward.get_total_flops() == backward_flops(shape, **cost)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_model_that_ships_can_be_copied_with_fewer_layers_and_read_from_json(name: str) -> None:
    model = Architecture.from_config(name, CONFIG["models"][name])
    shallow = dataclasses.replace(model, layers=2)
    assert (shallow.layers, shallow.key_heads, shallow.head_dim) == (2, model.key_heads, model.head_dim)
    assert Architecture(**json.loads(json.dumps(dataclasses.asdict(model)))) == model


def test_a_size_is_the_plain_llama() -> None:
    size = ModelSize(d_model=48, d_ff=80, layers=2, heads=4)
    found = Architecture.of(size)
    assert (found.architecture, found.key_heads, found.head_dim, found.tied) == ("llama", 4, 12, False)
    assert Architecture.of(found) is found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "bert"}, "`models.mine.architecture` must be one of llama, gpt2, got 'bert'"),
        ({"key_heads": 3}, "`models.mine.key_heads` must divide heads (4), got 3"),
        ({"key_heads": 0}, "`models.mine.key_heads` must be a positive integer, got 0"),
        ({"tied": "yes"}, "`models.mine.tied` must be true or false, got 'yes'"),
        ({"rope_base": "1e4"}, "`models.mine.rope_base` must be a positive number, got '1e4'"),
        ({"head_dim": 15}, "must give an even head_dim, because rotary positions rotate pairs, got 15"),
        ({"heads": 5}, "`models.mine.heads` must divide d_model (48), got 5"),
        ({"positions": 64}, "`models.mine.positions` must be left out of the architecture llama, got 64"),
        (
            {"architecture": "gpt2", "qk_norm": True},
            "`models.mine.qk_norm` must be left out of the architecture gpt2, got True",
        ),
        ({"rope_scaling": {"factor": 8}}, "must be a mapping of factor, low_frequency_factor, high_frequency_factor"),
        ({"rope_scaling": SCALING | {"factor": -1}}, "must hold positive numbers, got -1 for factor"),
        (
            {"width": 3},
            "`models.mine` must hold only the fields d_model, d_ff, layers, heads, vocabulary, architecture",
        ),
    ],
)
def test_a_mistake_is_one_sentence(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        Architecture.from_config("mine", SHAPE | change)
    assert len(caught.value.problems) == 1
    assert message in str(caught.value)
