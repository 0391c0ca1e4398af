"""Models and a kernel of a user's own, good ones and wrong ones; the tests name them by path."""

import random
import socket

import torch
from torch import nn


class Mixer(nn.Module):
    def __init__(self, vocabulary, attention, layers=3):
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, 32), nn.Linear(32, vocabulary)
        self.layers = nn.ModuleList(Layer(attention) for _ in range(layers))

    def forward(self, tokens):
        x = self.embedding(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class Layer(nn.Module):
    def __init__(self, attention):
        super().__init__()
        self.norm, self.qkv, self.out, self.attention = (
            nn.LayerNorm(32),
            nn.Linear(32, 96),
            nn.Linear(32, 32),
            attention,
        )

    def forward(self, x):
        q, k, v = self.qkv(self.norm(x)).unflatten(-1, (3, 2, 16)).permute(2, 0, 3, 1, 4)
        return x + self.out(self.attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


def mixer(vocabulary, attention, layers=3):
    return Mixer(vocabulary, attention, layers)


class WithLoss(nn.Module):
    """As nanoGPT has it: targets perhaps, and (logits, loss)."""

    def __init__(self, vocabulary):
        super().__init__()
        self.embedding, self.head = nn.Embedding(vocabulary, 16), nn.Linear(16, vocabulary)

    def forward(self, tokens, targets=None):
        logits = self.head(self.embedding(tokens))
        return logits, None if targets is None else nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def with_loss(vocabulary):
    return WithLoss(vocabulary)


class Wrong(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.embedding, self.answer = nn.Embedding(97, 97), answer

    def forward(self, tokens):
        return self.answer(self.embedding(tokens))


def no_gradient():
    return Wrong(lambda x: x.detach())


def wrong_shape():
    return Wrong(lambda x: x.mean(-1))


def raises():
    def answer(x):
        raise RuntimeError("a bug of mine\nand its second line")

    return Wrong(answer)


def raises_while_it_is_built():
    raise KeyError("width")


def downloads():
    socket.create_connection(("example.com", 443), timeout=1)


def downloads_quietly():
    try:
        socket.create_connection(("example.com", 443), timeout=1)
    except OSError:
        return WithLoss(97)


def needs_more(width):
    return WithLoss(width)


def no_module():
    return 3


def needs_values():
    return Wrong(lambda x: x * (1.0 if x.sum().item() < 1e9 else 2.0))


class Capped(Mixer):
    """Each block looks at a value."""

    def __init__(self, vocabulary, attention):
        super().__init__(vocabulary, attention)
        self.layers = nn.ModuleList(LooksAtValues(attention) for _ in range(3))


class LooksAtValues(Layer):
    def forward(self, x):
        return super().forward(x) * (1.0 if x.sum().item() < 1e9 else 2.0)


def needs_values_in_blocks(vocabulary, attention):
    return Capped(vocabulary, attention)


def in_bf16_and_tied(vocabulary):
    model = WithLoss(vocabulary)
    model.head.weight = model.embedding.weight
    return model.to(torch.bfloat16)


def on_meta(vocabulary):
    with torch.device("meta"):
        return WithLoss(vocabulary)


def exits():
    raise SystemExit("usage: my_models.py")


class WithoutModules(nn.Module):
    """Its matrices belong to no Linear and no Embedding."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(97, 16))

    def forward(self, tokens):
        return self.rows[tokens] @ self.rows.T


def without_modules():
    return WithoutModules()


class Drops(WithLoss):
    """It drops features in evaluation mode too."""

    def forward(self, tokens):
        return self.head(nn.functional.dropout(self.embedding(tokens), 0.1))


def drops(vocabulary):
    return Drops(vocabulary)


class DropsAndLooksAtValues(Drops):
    def forward(self, tokens):
        logits = super().forward(tokens)
        return logits * (1.0 if logits.sum().item() < 1e9 else 2.0)


def drops_and_needs_values(vocabulary):
    return DropsAndLooksAtValues(vocabulary)


class DropsNothing(Drops):
    """Its loss is not a number, drawn or not."""

    def forward(self, tokens):
        return super().forward(tokens) * float("nan")


def drops_nothing(vocabulary):
    return DropsNothing(vocabulary)


class DropsByPython(WithLoss):
    """What draws is no operator of torch."""

    def forward(self, tokens):
        return self.head(self.embedding(tokens) * random.uniform(0.9, 1.1))


def drops_by_python(vocabulary):
    return DropsByPython(vocabulary)


class Seeded(WithLoss):
    """It draws the same numbers in each call, and its attention drops nothing."""

    def forward(self, tokens):
        x = self.embedding(tokens)
        x = x + torch.rand(x.shape[-1], generator=torch.Generator().manual_seed(0)).to(x.device)
        heads = x.unflatten(-1, (2, 8)).transpose(1, 2)
        mixed = nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)
        return self.head(mixed.transpose(1, 2).flatten(2))


def seeded(vocabulary):
    return Seeded(vocabulary)


class Unused(WithLoss):
    """Most of its parameters are in no forward pass."""

    def __init__(self, vocabulary):
        super().__init__(vocabulary)
        self.unused = nn.Linear(200, 200)


def unused(vocabulary):
    return Unused(vocabulary)


class Positions(WithLoss):
    """It has 32 learned positions, whatever the context."""

    def __init__(self, vocabulary):
        super().__init__(vocabulary)
        self.positions = nn.Embedding(32, 16)

    def forward(self, tokens):
        where = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.embedding(tokens) + self.positions(where))


def positions(vocabulary):
    return Positions(vocabulary)


class PositionsAndValues(Positions):
    def forward(self, tokens):
        factor = 1.0 if tokens.sum().item() < 1e9 else 2.0
        return super().forward(tokens) * factor


def positions_and_values(vocabulary):
    return PositionsAndValues(vocabulary)


class Sink(WithLoss):
    """Attention with one key more than there are tokens: scores [T, T + 1]."""

    def __init__(self, vocabulary):
        super().__init__(vocabulary)
        self.qkv, self.first = nn.Linear(16, 48), nn.Parameter(torch.zeros(1, 1, 16))

    def forward(self, tokens):
        x = self.embedding(tokens)
        q, k, v = self.qkv(x).chunk(3, -1)
        first = self.first.expand(len(x), 1, 16)
        scores = q @ torch.cat([first, k], 1).mT / 4
        later = torch.ones(scores.shape[1:], dtype=torch.bool, device=x.device).triu(2)
        return self.head(x + scores.masked_fill(later, -1e9).softmax(-1) @ torch.cat([first, v], 1))


def sink(vocabulary):
    return Sink(vocabulary)


class Cubic(WithLoss):
    """Keeps a tensor of T cubed elements."""

    def forward(self, tokens):
        x = self.embedding(tokens)
        pairs = x @ x.mT
        return self.head(x + (pairs[:, :, :, None] * pairs[:, :, None, :]).sum((2, 3))[..., None] * 1e-9)


def cubic(vocabulary):
    return Cubic(vocabulary)


def twice_the_scale(q, k, v, *, is_causal, scale):
    return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=2 * scale)


def kernel(q, k, v, *, is_causal, scale):
    return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)


def kernel_that_needs_values(q, k, v, *, is_causal, scale):
    return kernel(q, k, v, is_causal=is_causal, scale=scale) * (1.0 if q.sum().item() < 1e9 else 2.0)


def kernel_that_raises(q, k, v, *, is_causal, scale):
    raise RuntimeError("a bug of mine")


def kernel_without_scale(q, k, v, *, is_causal):
    return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=is_causal)


def kernel_without_gradient(q, k, v, *, is_causal, scale):
    return kernel(q, k, v, is_causal=is_causal, scale=scale).detach()


def kernel_that_downloads(q, k, v, *, is_causal, scale):
    downloads()


class RaisesBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q):
        return q.clone()

    @staticmethod
    def backward(ctx, upstream):
        raise ValueError("no backward pass yet")


def kernel_that_raises_backward(q, k, v, *, is_causal, scale):
    return RaisesBackward.apply(kernel(q, k, v, is_causal=is_causal, scale=scale))


def transposed(q, k, v, *, is_causal, scale):
    return torch.transpose(kernel(q, k, v, is_causal=is_causal, scale=scale), 1, 2)
