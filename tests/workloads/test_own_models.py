"""A Hugging Face config and modules of one's own go through the experiments; a wrong one ends with one sentence."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch

from stepbench.experiments.attention import measure as attention
from stepbench.experiments.attention.cell import Cell as Attention
from stepbench.experiments.checkpointing import measure as checkpointing
from stepbench.experiments.checkpointing.cell import Cell as Checkpointing
from stepbench.experiments.data_parallel import measure as data_parallel
from stepbench.experiments.data_parallel.cell import Cell as DataParallel
from stepbench.experiments.end_to_end import measure as end_to_end
from stepbench.experiments.end_to_end.cell import Cell as EndToEnd
from stepbench.experiments.fits import measure as fits
from stepbench.experiments.fits.cell import Cell as Fits
from stepbench.experiments.fsdp import measure as fsdp
from stepbench.experiments.fsdp.cell import Cell as Fsdp
from stepbench.experiments.memory import measure as memory
from stepbench.experiments.memory.cell import Cell as Memory
from stepbench.experiments.profile import measure as profile
from stepbench.experiments.profile.cell import Cell as Profile
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError, WrongResultError
from stepbench.own_code import OwnCodeError
from stepbench.process import failures
from stepbench.workloads import examined
from stepbench.workloads.spec import StepSpec

FILE = Path(__file__).with_name("my_models.py")
CONTEXT, BATCH, VOCABULARY = 16, 2, 97
NAMES = ("hf", "module")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    from transformers import GPT2Config, LlamaConfig, MistralConfig

    folder = tmp_path_factory.mktemp("models")
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, **small).save_pretrained(folder / "llama")
    GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=3, n_head=4, n_positions=64).save_pretrained(folder / "gpt2")
    MistralConfig(vocab_size=VOCABULARY, sliding_window=4, **small).save_pretrained(folder / "window")
    (folder / "nothing.json").write_text('{"model_type": "no_such_model", "vocab_size": 97}')
    (folder / "encoder.json").write_text('{"model_type": "vit", "vocab_size": 97}')
    named = {"hf": "llama/config.json", "gpt2": "gpt2/config.json", "window": "window/config.json"}
    named |= {"nothing": "nothing.json", "encoder": "encoder.json"}
    return {
        "module": {"module": f"{FILE}:mixer", "vocabulary": VOCABULARY},
        **{name: {"hf": str(folder / path)} for name, path in named.items()},
    }


def setting(model: dict[str, Any], **more: Any) -> Setting:
    return Setting(
        device="cpu",
        protocol={"warmup_steps": 1, "measured_steps": 1, "seed": 0, "threads": 2},
        definition={"vocabulary": VOCABULARY, "size": model, **more},
    )


@pytest.fixture(scope="module")
def measured(models: dict[str, dict[str, Any]]) -> Any:
    """What measures one cell of a model, once."""
    cells: dict[str, tuple[Any, Any]] = {
        "end_to_end": (end_to_end, EndToEnd("mine", CONTEXT, BATCH, attention="sdpa")),
        "memory": (memory, Memory("measured", "mine", CONTEXT, BATCH)),
        "checkpointing": (checkpointing, Checkpointing("measured", "mine", CONTEXT, BATCH, groups="2-1")),
        "profile": (profile, Profile("mine", CONTEXT, BATCH)),
        "data_parallel": (data_parallel, DataParallel("mine", "bucketed", CONTEXT, BATCH)),
        "fsdp": (fsdp, Fsdp("measured", "mine", "fsdp", CONTEXT, BATCH, groups="1")),
    }

    @functools.cache
    def measure(name: str, experiment: str) -> Measurement:
        module, cell = cells[experiment]
        found: Measurement = module.measure(cell, setting(models[name]))
        return found

    return measure


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_timed_and_its_loss_and_flops_are_known(measured: Any, name: str) -> None:
    found = measured(name, "end_to_end")
    assert len(found.samples["step_s"]) == 1
    assert found.samples["loss_nats"][0] == pytest.approx(4.6, abs=0.4)  # ln 97
    scalars = found.scalars
    assert scalars["backward_flops"] == 2 * scalars["forward_flops"]
    # Matrix products of the weights, and attention's two.
    multiplied = {"hf": 3 * (32 * 32 * 3 + 32 * 48 * 3) + 32 * 97, "module": 3 * (32 * 96 + 32 * 32) + 32 * 97}[name]
    tokens = CONTEXT * BATCH
    assert scalars["forward_flops"] == 2 * tokens * multiplied + 3 * 4 * tokens * CONTEXT * 32
    assert "flops_unknown" not in found.protocol
    # A causal query sees the keys up to its own position.
    assert scalars["least_flops"] == 3 * (2 * tokens * multiplied + 3 * 4 * BATCH * (CONTEXT * (CONTEXT + 1) // 2) * 32)


@pytest.mark.parametrize("name", NAMES)
def test_memory_is_predicted_and_measured(measured: Any, name: str) -> None:
    scalars = measured(name, "memory").scalars
    assert scalars["predicted_peak_bytes"] == pytest.approx(scalars["peak_memory_bytes"], rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_named_blocks_are_checkpointed(measured: Any, name: str) -> None:
    found = measured(name, "checkpointing")
    assert found.scalars["blocks"] == 3
    saved = sum(each["saved_bytes"] for each in found.details["saved_by_one_block"])
    assert saved > 0
    # A checkpointed group keeps its input alone.
    assert found.scalars["kept_activation_bytes"] < 3 * saved + CONTEXT * BATCH * VOCABULARY * 4


@pytest.mark.parametrize("name", NAMES)
def test_its_operators_are_listed(measured: Any, name: str) -> None:
    assert len(measured(name, "profile").samples["profiled_forward_s"]) > 0


@pytest.mark.parametrize(
    ("experiment", "name"),
    [
        ("data_parallel", "module"),
        pytest.param("data_parallel", "hf", marks=pytest.mark.slow),  # each rank imports transformers
        ("fsdp", "module"),
        ("fsdp", "hf"),
    ],
)
def test_ranks_compute_the_step_of_one_process(measured: Any, name: str, experiment: str) -> None:
    found = measured(name, experiment)
    scalars = found.scalars
    assert scalars["equivalence_difference_ratio"] <= scalars["equivalence_tolerance_ratio"]
    assert len(found.samples["step_s"]) == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_record_says_how_much_is_sharded(measured: Any, name: str) -> None:
    matrices = {"hf": 3 * (32 * 32 * 3 + 32 * 48 * 3) + 2 * 32 * 97, "module": 3 * (32 * 96 + 32 * 32) + 2 * 32 * 97}
    scalars = measured(name, "fsdp").scalars
    assert scalars["sharded_ratio"] == pytest.approx(matrices[name] / scalars["parameters"])
    assert scalars["sharded_ratio"] > 0.9


def test_the_attention_of_the_cell_gets_into_the_model(models: dict[str, dict[str, Any]]) -> None:
    calls: list[torch.Size] = []

    def counted(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, is_causal: bool) -> torch.Tensor:
        calls.append(k.shape)
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal, enable_gqa=True)

    from stepbench.workloads import step

    for name, key_heads in (("hf", 2), ("gpt2", 4), ("module", 2)):
        calls.clear()
        spec = StepSpec.of(EndToEnd("mine", CONTEXT, BATCH), setting(models[name]))
        step.build(spec, setting(models[name]), steps=1, attention=counted).run()
        assert [shape[1] for shape in calls] == [key_heads] * 3, name


def test_gpt2s_matrices_are_sharded_although_they_are_no_linear(models: dict[str, dict[str, Any]]) -> None:
    from stepbench.models import own_module
    from stepbench.parallel.unit_plan import plan
    from stepbench.workloads import decoders

    spec = StepSpec.of(EndToEnd("mine", CONTEXT, BATCH), setting(models["gpt2"]))
    model = decoders.build(spec, setting(models["gpt2"]))
    classes = own_module.classes_named(model, own_module.SHARDED)
    assert {each.__name__ for each in classes} == {"Linear", "Embedding", "Conv1D"}
    weights = [weight for unit in plan(model, classes) for weight in unit.weights]
    assert sum(weight.numel() for weight in weights) == sum(
        each.numel() for each in model.parameters() if each.dim() > 1
    )


def test_what_fits_is_predicted_from_the_whole_model(models: dict[str, dict[str, Any]]) -> None:
    found = fits.measure(Fits("predicted", "mine"), setting(models["module"]))
    resident_bytes = 4 * 4 * found.scalars["parameters"]  # weights, gradients and AdamW's two moments
    (piece,) = found.details["pieces"]
    assert all(coefficients[0] > resident_bytes / 2 for coefficients in piece["coefficients"])


def own(function: str) -> dict[str, Any]:
    return {"module": f"{FILE}:{function}"}


def test_a_module_may_return_its_loss() -> None:
    found = end_to_end.measure(EndToEnd("mine", CONTEXT, BATCH), setting(own("with_loss")))
    assert found.samples["loss_nats"][0] == pytest.approx(4.6, abs=0.4)
    assert found.scalars["least_flops"] is None  # how much of it is attention nobody knows


def test_what_cannot_be_known_of_flops_is_null_and_said() -> None:
    found = end_to_end.measure(EndToEnd("mine", CONTEXT, BATCH), setting(own("needs_values")))
    assert found.scalars["forward_flops"] is found.scalars["backward_flops"] is None
    assert found.protocol["flops_unknown"].startswith("the model does not run without values: ")
    assert found.scalars["parameters"] == 97 * 97


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("no_gradient", "must return what its parameters have a gradient of, got no gradient"),
        ("wrong_shape", "must return logits [2, 16, 97 or more] or a loss, got torch.float32 [2, 16]"),
        ("raises", "raised RuntimeError: a bug of mine"),
        ("raises_while_it_is_built", "raised KeyError: 'width'"),
        ("downloads", "must not use the network, because a measurement must be the same everywhere, and it tried to "),
        ("downloads_quietly", "must not use the network"),
        ("needs_more", "must have parameters among vocabulary, context, attention and layers, or with defaults, got w"),
        ("no_module", "must return an nn.Module, got int"),
        ("nowhere", "must name a function, and "),
    ],
)
def test_a_wrong_module_ends_with_one_sentence(function: str, sentence: str) -> None:
    with pytest.raises(OwnCodeError) as caught:
        end_to_end.measure(EndToEnd("mine", CONTEXT, BATCH), setting(own(function)))
    told = failures.sentence(caught.value)
    assert sentence in told
    assert told.startswith(f"`{FILE}:{function}` ")
    assert failures.failure(failures.kind_of(caught.value), told)["status"] == "unsupported"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("window", "must have plain causal attention, got a window of 4 tokens"),
        ("nothing", "must be a configuration that transformers "),
        ("encoder", "must describe a causal language model, got vit"),
    ],
)
def test_a_wrong_config_ends_with_one_sentence(models: dict[str, dict[str, Any]], name: str, sentence: str) -> None:
    with pytest.raises(OwnCodeError) as caught:
        end_to_end.measure(EndToEnd("mine", CONTEXT, BATCH), setting(models[name]))
    assert sentence in failures.sentence(caught.value)


def test_a_module_without_attention_refuses_another_than_its_own() -> None:
    with pytest.raises(UnsupportedError, match=r"has an attention of its own, .*; the axis must be naive, got sdpa"):
        end_to_end.measure(EndToEnd("mine", CONTEXT, BATCH, attention="sdpa"), setting(own("with_loss")))


def test_a_module_is_examined_once() -> None:
    before = examined.examine.cache_info().misses
    for _ in range(2):
        StepSpec.of(EndToEnd("mine", 13, BATCH), setting(own("with_loss")))
    assert examined.examine.cache_info().misses == before + 1


OPERATOR = Attention("mine", seq=32, head_dim=16, heads=2)


def test_a_kernel_of_ones_own_is_checked_against_float64_and_timed() -> None:
    found = attention.measure(OPERATOR, setting({}, kernel={"function": f"{FILE}:kernel"}))
    assert len(found.samples["forward_s"]) == 1
    assert found.scalars["dq_error"] < 1e-5


@pytest.mark.parametrize(
    ("function", "error", "sentence"),
    [
        ("twice_the_scale", WrongResultError, "o must be within"),
        (
            "transposed",
            OwnCodeError,
            "must return a tensor like q, torch.float32 [1, 2, 32, 16], got ",
        ),
    ],
)
def test_a_wrong_kernel_is_refused(function: str, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as caught:
        attention.measure(OPERATOR, setting({}, kernel={"function": f"{FILE}:{function}"}))
    assert sentence in str(caught.value)


def test_a_step_runs_with_a_kernel_of_ones_own() -> None:
    size = {"d_model": 32, "d_ff": 48, "layers": 2, "heads": 2, "key_heads": 2}
    kernel = {"function": f"{FILE}:kernel"}
    found = end_to_end.measure(EndToEnd("nano", CONTEXT, BATCH, attention="mine"), setting(size, kernel=kernel))
    assert found.protocol["attention"] == kernel["function"]
    wrong = setting(size, kernel={"function": f"{FILE}:twice_the_scale"})
    with pytest.raises(WrongResultError, match="o must be within"):
        end_to_end.measure(EndToEnd("nano", 64, BATCH, attention="mine"), wrong)
