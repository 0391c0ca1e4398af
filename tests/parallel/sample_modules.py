"""Small modules with everything in them that a strategy can trip over."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY = 13


class Tangle(nn.Module):
    """A language model with a tied head, frozen parameters, odd sizes, a parameter without dims and one never used."""

    def __init__(self, *, width: int = 6, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 9), nn.Tanh(), nn.Linear(9, width), nn.LayerNorm(width)) for _ in range(3)
        )
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.sometimes = nn.Linear(width, width)
        self.never = nn.Linear(5, 3)
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        self.head.weight = self.embedding.weight
        self.blocks[1][0].weight.requires_grad_(False)
        self.blocks[2][2].bias.requires_grad_(False)
        self.register_buffer("offset", torch.linspace(-1, 1, width))
        self.to(dtype)

    def forward(self, tokens: Tensor, *, use_sometimes: bool = True) -> Tensor:
        x = self.embedding(tokens) + self.offset
        for block in self.blocks:
            x = x + self.scale * block(x)
        if use_sometimes:
            x = x + self.sometimes(x)
        return self.head(x)


class ManyDtypes(nn.Module):
    """Parameters of three dtypes, which cannot share a message."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 7, dtype=torch.float64)
        self.second = nn.Linear(7, 3, dtype=torch.float32)
        self.third = nn.Linear(3, 4, dtype=torch.bfloat16)
        self.fourth = nn.Linear(4, 2, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).float())
        return self.fourth(self.third(x.bfloat16()).float())


class Branches(nn.Module):
    """One of several branches; the ranks may take different ones in the same step."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = nn.Linear(4, 5)
        self.branches = nn.ModuleList(nn.Linear(5, 3) for _ in range(4))
        self.double()

    def forward(self, x: Tensor, *, branch: int) -> Tensor:
        return self.branches[branch](torch.tanh(self.entry(x)))


def language_loss(model: nn.Module, tokens: Tensor, targets: Tensor, *, use_sometimes: bool = True) -> Tensor:
    """Return the mean cross-entropy; tokens and targets `[B, T]`."""
    return F.cross_entropy(model(tokens, use_sometimes=use_sometimes).flatten(0, 1), targets.flatten())


def tokens(steps: int, batch: int, context: int = 7, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return int64 inputs and targets `[steps, batch, context]`, the same on every rank."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, VOCABULARY, (steps, batch, context), generator=generator) for _ in range(2))
