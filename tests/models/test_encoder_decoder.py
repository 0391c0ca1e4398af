"""The encoder-decoder against torch's own building blocks in float64, and what each position may see."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stepbench.kernels.api import bind
from stepbench.models.encoder_decoder import CrossAttention, EncoderDecoder, FeedForward
from stepbench.models.layers import rotary_angles, rotate
from stepbench.models.presets import Preset

PRESET = Preset(d_model=16, d_ff=24, encoder_layers=2, decoder_layers=3, heads=2, vocabulary=37)


def model(**changes: object) -> EncoderDecoder:
    torch.manual_seed(0)
    made = EncoderDecoder(PRESET, attention=bind("naive"), dtype=torch.float64)
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)  # so that what one position changes stands out at another
    return made


def tokens(length: int, seed: int) -> torch.Tensor:
    return torch.randint(PRESET.vocabulary, (3, length), generator=torch.Generator().manual_seed(seed))


def heads(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (PRESET.heads, -1)).transpose(1, 2)


def attend(
    layer: nn.Module, q_from: torch.Tensor, kv_from: torch.Tensor, *, turned: bool, causal: bool
) -> torch.Tensor:
    """Torch's attention with the layer's matrices."""
    q, k, v = heads(layer.query(q_from)), heads(layer.key(kv_from)), heads(layer.value(kv_from))  # type: ignore[operator]
    if turned:
        cos, sin = rotary_angles(q_from, q.shape[-1])
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return layer.output(mixed.transpose(1, 2).flatten(2))  # type: ignore[operator]


def norm(layer: nn.RMSNorm, x: torch.Tensor) -> torch.Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.weight


def feed(layer: FeedForward, x: torch.Tensor) -> torch.Tensor:
    inner = x @ layer.up.weight.T
    return (inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))) @ layer.down.weight.T


def test_logits_are_those_of_the_equations() -> None:
    net, source, target = model(), tokens(7, 1), tokens(5, 2)
    x = net.source_embedding.weight[source]
    for block in net.encoder:
        read = norm(block.attention_norm, x)
        x = x + attend(block.attention, read, read, turned=True, causal=False)
        x = x + feed(block.feed_forward, norm(block.feed_forward_norm, x))
    encoded = norm(net.encoder_norm, x)
    y = net.target_embedding.weight[target]
    for block in net.decoder:
        read = norm(block.attention_norm, y)
        y = y + attend(block.attention, read, read, turned=True, causal=True)
        y = y + attend(block.cross_attention, norm(block.cross_attention_norm, y), encoded, turned=False, causal=False)
        y = y + feed(block.feed_forward, norm(block.feed_forward_norm, y))
    logits = norm(net.decoder_norm, y) @ net.head.weight.T
    torch.testing.assert_close(net(source, target), logits, rtol=1e-11, atol=1e-11)


def test_a_target_sees_no_later_target_and_all_of_the_source() -> None:
    net, source, target = model(), tokens(6, 1), tokens(6, 2)
    before = net(source, target)
    later = target.clone()
    later[:, 4] = (later[:, 4] + 1) % PRESET.vocabulary
    after = net(source, later)
    torch.testing.assert_close(after[:, :4], before[:, :4], rtol=0, atol=1e-12)
    assert (after[:, 4:] - before[:, 4:]).abs().amax(-1).min() > 1e-6
    last = source.clone()
    last[:, -1] = (last[:, -1] + 1) % PRESET.vocabulary
    assert (net(last, target) - before).abs().amax(-1).min() > 1e-9


def test_source_and_target_may_differ_in_length() -> None:
    assert model()(tokens(9, 1), tokens(4, 2)).shape == (3, 4, PRESET.vocabulary)


@pytest.mark.parametrize("implementation", ["sdpa", "tiled", "reference"])
def test_every_attention_gives_the_same_logits(implementation: str) -> None:
    net, source, target = model(), tokens(7, 1), tokens(5, 2)
    expected = net(source, target)
    for module in net.modules():
        if hasattr(module, "attention") and callable(module.attention) and not isinstance(module.attention, nn.Module):
            module.attention = bind(implementation)
    torch.testing.assert_close(net(source, target), expected, rtol=1e-10, atol=1e-10)


def test_cross_attention_has_no_positions() -> None:
    layer = CrossAttention(16, 2, attention=bind("naive"), dtype=torch.float64)
    target, encoded = (torch.randn(2, length, 16, dtype=torch.float64) for length in (3, 5))
    order = torch.tensor([4, 2, 0, 1, 3])
    torch.testing.assert_close(layer(target, encoded), layer(target, encoded[:, order]), rtol=1e-10, atol=1e-12)


def test_every_parameter_gets_a_gradient() -> None:
    net = model()
    net(tokens(7, 1), tokens(5, 2)).square().mean().backward()
    assert all(parameter.grad is not None and bool(parameter.grad.any()) for parameter in net.parameters())
