"""The decoder against an independent implementation of the same architecture, and under every mode torch runs it in."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from stepbench.models.architecture import EPS, ROPE_BASE
from stepbench.models.costs import parameters
from stepbench.models.decoder import Decoder, next_token_loss
from stepbench.models.sizes import ModelSize

SIZE = ModelSize(d_model=48, d_ff=80, layers=3, heads=4)
VOCABULARY = 97

SAME_NAMES = {
    "embedding.weight": "model.embed_tokens.weight",
    "norm.weight": "model.norm.weight",
    "head.weight": "lm_head.weight",
}
BLOCK_NAMES = {
    "attention_norm.weight": "input_layernorm.weight",
    "attention.query.weight": "self_attn.q_proj.weight",
    "attention.key.weight": "self_attn.k_proj.weight",
    "attention.value.weight": "self_attn.v_proj.weight",
    "attention.output.weight": "self_attn.o_proj.weight",
    "feed_forward_norm.weight": "post_attention_layernorm.weight",
    "feed_forward.gate.weight": "mlp.gate_proj.weight",
    "feed_forward.up.weight": "mlp.up_proj.weight",
    "feed_forward.down.weight": "mlp.down_proj.weight",
}
REFERENCE_NAMES = SAME_NAMES | {
    f"blocks.{layer}.{ours}": f"model.layers.{layer}.{theirs}"
    for layer in range(SIZE.layers)
    for ours, theirs in BLOCK_NAMES.items()
}


class Float32AsFloat64(TorchFunctionMode):
    """Give float64 to whoever asks for float32.

    transformers casts to float32 by name inside its norms, its softmax and its rotary angles, also in a float64 model.
    Its formulas stay untouched; only that request is answered in float64.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.float:
            return args[0].double()
        args = tuple(torch.float64 if arg is torch.float32 else arg for arg in args)
        kwargs = {key: torch.float64 if arg is torch.float32 else arg for key, arg in (kwargs or {}).items()}
        return func(*args, **kwargs)


def decoder(dtype: torch.dtype | None = torch.float64, size: ModelSize = SIZE, **kwargs: Any) -> Decoder:
    torch.manual_seed(0)
    kwargs = {"attention": F.scaled_dot_product_attention} | kwargs
    return Decoder(size, vocabulary=VOCABULARY, dtype=dtype, **kwargs)


def random_tokens(batch: int, context: int) -> tuple[Tensor, Tensor]:
    windows = torch.randint(VOCABULARY, (batch, context + 1), generator=torch.Generator().manual_seed(1))
    return windows[:, :-1], windows[:, 1:]


def llama(model: Decoder) -> nn.Module:
    """Return transformers' model with the weights of `model`."""
    from transformers import LlamaConfig, LlamaForCausalLM

    reference = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=SIZE.d_model,
            intermediate_size=SIZE.d_ff,
            num_hidden_layers=SIZE.layers,
            num_attention_heads=SIZE.heads,
            num_key_value_heads=SIZE.heads,
            rms_norm_eps=EPS,
            rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
            max_position_embeddings=512,
            tie_word_embeddings=False,
            attention_bias=False,
            mlp_bias=False,
            attn_implementation="eager",
        )
    ).double()
    weights = dict(model.named_parameters())
    assert weights.keys() == REFERENCE_NAMES.keys()
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            parameter.fill_(torch.nan)
            parameter.copy_(weights[{theirs: ours for ours, theirs in REFERENCE_NAMES.items()}[name]])
    return reference


@pytest.fixture(scope="module")
def pair() -> tuple[Decoder, nn.Module]:
    model = decoder()
    with torch.no_grad():
        for parameter in model.parameters():
            # Norms start at one and hidden layers near zero: both would hide a swapped pair of weights.
            parameter.copy_(torch.randn_like(parameter) * 0.15 + (parameter.dim() == 1))
    with Float32AsFloat64():
        return model, llama(model)


@pytest.mark.parametrize(("batch", "context"), [(1, 1), (2, 2), (3, 17), (2, 128), (1, 300)])
def test_logits_and_gradients_agree_with_transformers(
    pair: tuple[Decoder, nn.Module], batch: int, context: int
) -> None:
    model, reference = pair
    inputs, targets = random_tokens(batch, context)
    model.zero_grad()
    reference.zero_grad()
    logits = model(inputs)
    next_token_loss(logits, targets).backward()
    with Float32AsFloat64():
        expected = reference(input_ids=inputs, use_cache=False).logits
        F.cross_entropy(expected.flatten(0, 1), targets.flatten()).backward()

    assert logits.dtype == expected.dtype == torch.float64
    assert expected.std() > 0.5
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)
    theirs = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[REFERENCE_NAMES[name]].grad, rtol=0, atol=1e-9, msg=name)


def test_transformers_as_it_is_agrees_to_float32(pair: tuple[Decoder, nn.Module]) -> None:
    model, reference = pair
    inputs, _ = random_tokens(2, 64)
    expected = reference(input_ids=inputs, use_cache=False).logits
    torch.testing.assert_close(model(inputs), expected, rtol=0, atol=1e-4)


@settings(max_examples=25)
@given(data=st.data(), context=st.integers(2, 24))
def test_a_later_token_never_changes_an_earlier_logit(data: st.DataObject, context: int) -> None:
    position = data.draw(st.integers(1, context - 1))
    model = decoder()
    inputs, _ = random_tokens(2, context)
    changed = inputs.clone()
    changed[:, position] = (changed[:, position] + 1) % VOCABULARY
    before, after = model(inputs), model(changed)
    torch.testing.assert_close(after[:, :position], before[:, :position], rtol=0, atol=1e-13)
    assert not torch.allclose(after[:, position], before[:, position], rtol=0, atol=1e-6)


def test_a_step_runs_on_fake_tensors() -> None:
    size = ModelSize(d_model=2560, d_ff=10240, layers=4, heads=32)
    with FakeTensorMode():
        model = decoder(torch.bfloat16, size)
        optimizer = torch.optim.AdamW(model.parameters())
        tokens = torch.randint(VOCABULARY, (4, 2048))
        loss = next_token_loss(model(tokens), tokens)
        loss.backward()
        optimizer.step()
    assert isinstance(loss, FakeTensor)
    assert loss.dtype == torch.float32
    assert sum(p.nbytes for p in model.parameters()) == 2 * parameters(size, VOCABULARY)


class Checkpointed(nn.Module):
    def __init__(self, blocks: nn.ModuleList) -> None:
        super().__init__()
        self.blocks = blocks
        self.passes = 0

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        return checkpoint(self._run, x, cos, sin, use_reentrant=False)

    def _run(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        self.passes += 1
        for block in self.blocks:
            x = block(x, cos, sin)
        return x


@pytest.mark.parametrize("together", [1, 2, 3])
def test_checkpointed_blocks_give_the_same_gradients(together: int) -> None:
    plain, checkpointed = decoder(), decoder()
    groups = [checkpointed.blocks[start : start + together] for start in range(0, SIZE.layers, together)]
    checkpointed.blocks = nn.ModuleList(Checkpointed(group) for group in groups)
    inputs, targets = random_tokens(2, 16)
    losses = [next_token_loss(model(inputs), targets) for model in (plain, checkpointed)]
    for loss in losses:
        loss.backward()
    assert torch.equal(losses[0], losses[1])
    for ours, theirs in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    assert [group.passes for group in checkpointed.blocks] == [2] * len(groups)


def test_it_compiles_as_one_graph() -> None:
    model = decoder(size=ModelSize(d_model=16, d_ff=24, layers=1, heads=2))
    inputs, targets = random_tokens(2, 16)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(inputs), model(inputs), rtol=0, atol=1e-12)
    next_token_loss(compiled(inputs), targets).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("autocast_dtype", [torch.bfloat16, torch.float16])
def test_under_autocast_the_loss_and_the_gradients_are_float32(autocast_dtype: torch.dtype) -> None:
    model = decoder(torch.float32)
    exact = copy.deepcopy(model).double()
    inputs, targets = random_tokens(2, 64)
    with torch.autocast("cpu", dtype=autocast_dtype):
        logits = model(inputs)
        loss = next_token_loss(logits, targets)
    loss.backward()
    assert (logits.dtype, loss.dtype) == (autocast_dtype, torch.float32)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.parameters())
    assert loss.item() == pytest.approx(next_token_loss(exact(inputs), targets).item(), rel=0.01)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_everything_is_created_in_its_dtype(dtype: torch.dtype) -> None:
    model = decoder(dtype)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    assert list(model.buffers()) == []
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters(SIZE, VOCABULARY)
    inputs, targets = random_tokens(2, 8)
    logits = model(inputs)
    assert logits.shape == (2, 8, VOCABULARY)
    assert logits.dtype == dtype
    assert next_token_loss(logits, targets).dtype == torch.promote_types(dtype, torch.float32)


def test_the_same_seed_gives_the_same_model_and_the_same_loss_to_the_bit() -> None:
    inputs, targets = random_tokens(2, 32)
    first, second = (next_token_loss(decoder(torch.float32)(inputs), targets) for _ in range(2))
    assert torch.equal(first, second)


def test_the_loss_is_the_mean_negative_log_likelihood_and_starts_near_that_of_a_guess() -> None:
    inputs, targets = random_tokens(4, 32)
    logits = decoder()(inputs)
    likelihood = logits.softmax(-1).gather(-1, targets[..., None])
    loss = next_token_loss(logits, targets)
    torch.testing.assert_close(loss, -likelihood.log().mean())
    assert loss.item() == pytest.approx(torch.log(torch.tensor(float(VOCABULARY))).item(), abs=0.1)
