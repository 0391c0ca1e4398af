"""How close is close enough: one rule for every kernel, dtype and quantity.

The oracle is the same computation in float64. What low precision costs by itself is measured, not guessed: the plain
computation in the tensor's own dtype is held against the oracle too. A kernel may err by twice that, plus a band for
rounding that the plain computation may have been spared by luck. The band is relative to the sum of the terms'
magnitudes, not to the result, which may be the little that is left of large terms:

    |kernel − oracle| ≤ 2 · max |plain − oracle| + 2 · (eps(dtype) + eps(score) · max Σ |q||k| scale) · max Σ |terms|

The second part of the band is what rounding in a score, which is an exponent, does to everything behind it; scores are
float32 for 16 bits, and there it is nearly nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stepbench.kernels import naive, reference
from stepbench.kernels.contract import visible_keys

QUANTITIES = ("o", "lse", "dq", "dk", "dv")


@dataclass(frozen=True)
class Problem:
    """One attention problem; its tensors follow from it, so that two processes can build the same ones."""

    q_len: int = 64
    k_len: int = 64
    head_dim: int = 64
    dtype: str = "float32"
    is_causal: bool = True
    batch: int = 1
    heads: int = 2
    key_heads: int = 2
    seed: int = 0
    device: str = "cpu"

    @property
    def scale(self) -> float:
        return self.head_dim**-0.5

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return q, k, v; they require gradients."""
        generator = torch.Generator().manual_seed(self.seed)
        return tuple(
            torch.randn(self.batch, heads, length, self.head_dim, generator=generator)
            .to(self.device, getattr(torch, self.dtype))
            .requires_grad_()
            for heads, length in ((self.heads, self.q_len), (self.key_heads, self.k_len), (self.key_heads, self.k_len))
        )  # type: ignore[return-value]

    def output_gradients(self) -> tuple[Tensor, Tensor]:
        """Return gradients of o and of lse."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        do = torch.randn(self.batch, self.heads, self.q_len, self.head_dim, generator=generator)
        dlse = torch.randn(self.batch, self.heads, self.q_len, generator=generator)
        return do.to(self.device, getattr(torch, self.dtype)), dlse.to(self.device)


def differentiate(o: Tensor, lse: Tensor | None, inputs: tuple[Tensor, ...], problem: Problem) -> dict[str, Tensor]:
    """Return o, lse and the gradients of q, k, v, as float64 on the CPU. The lse has a gradient as well."""
    do, dlse = problem.output_gradients()
    outputs = {"o": o} if lse is None else {"o": o, "lse": lse}
    seeds = [do.to(o.dtype)] if lse is None else [do.to(o.dtype), dlse.to(lse.dtype)]
    gradients = torch.autograd.grad(list(outputs.values()), inputs, seeds)
    results = outputs | dict(zip(("dq", "dk", "dv"), gradients, strict=True))
    return {name: value.detach().double().cpu() for name, value in results.items()}


def oracle(problem: Problem, *, with_lse: bool = True) -> dict[str, Tensor]:
    """Return the exact results: `reference` in float64, on the rounded inputs."""
    inputs = tuple(x.detach().double().requires_grad_() for x in problem.inputs())
    o, lse = reference.attention(*inputs, is_causal=problem.is_causal, scale=problem.scale, return_lse=True)
    return differentiate(o, lse if with_lse else None, inputs, problem)


def magnitudes(problem: Problem) -> dict[str, float]:
    """Return for each quantity the largest sum of magnitudes that any of its elements is made of."""
    q, k, v = (x.detach().double().cpu() for x in problem.inputs())
    do, dlse = (x.double().cpu() for x in problem.output_gradients())
    q, do, dlse = (x.unflatten(1, (problem.key_heads, -1)) for x in (q, do, dlse))
    k, v = k[:, :, None], v[:, :, None]
    s = q @ k.mT * problem.scale
    if problem.is_causal:
        s = s.masked_fill(~visible_keys(problem.q_len, problem.k_len, s.device), -torch.inf)
    p = s.softmax(dim=-1).nan_to_num(0.0)
    dp = do.abs() @ v.abs().mT
    ds = p * (dp + (p * dp).sum(dim=-1, keepdim=True) + dlse.abs()[..., None])
    terms = {
        "o": p @ v.abs(),
        "lse": q.abs() @ k.abs().mT * problem.scale,
        "dq": ds @ k.abs() * problem.scale,
        "dk": (ds.mT @ q.abs()).sum(dim=2) * problem.scale,
        "dv": (p.mT @ do.abs()).sum(dim=2),
    }
    return {name: value.max().item() for name, value in terms.items()}


def plain(problem: Problem, *, with_lse: bool = True) -> dict[str, Tensor]:
    """Return what the plain computation gives in the problem's own dtype."""
    inputs = problem.inputs()
    o, lse = naive.attention(*inputs, is_causal=problem.is_causal, scale=problem.scale, return_lse=True)
    return differentiate(o, lse if with_lse else None, inputs, problem)


def assert_as_exact_as_plain(got: Mapping[str, Tensor], problem: Problem) -> None:
    """Hold every quantity in `got` against the rule above; a failure prints both errors.

    Rows that see no key are held to the contract exactly: o = 0, lse = −∞, and no NaN anywhere.
    """
    with_lse = "lse" in got
    exact, low = oracle(problem, with_lse=with_lse), plain(problem, with_lse=with_lse)
    dtype, terms = getattr(torch, problem.dtype), magnitudes(problem)
    # Scores are summed up in float32 at least, from inputs that are exact.
    eps, score_eps = torch.finfo(dtype).eps, torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    for name, value in got.items():
        assert not value.isnan().any(), f"{name} must hold no NaN, got {int(value.isnan().sum())}; {problem}"
        if name == "lse":
            blind = exact["lse"].isinf()
            assert torch.equal(value.isinf(), blind), f"lse must be −∞ where no key is seen; {problem}"
            assert not got["o"][blind].any(), f"o must be 0 where no key is seen; {problem}"
            value, exact["lse"], low["lse"] = (x.masked_fill(blind, 0) for x in (value, exact["lse"], low["lse"]))
        error, plain_error = ((x - exact[name]).abs().max().item() for x in (value, low[name]))
        # A score that is off by δ makes its probability off by the factor 1 + δ, and with it all but the logsumexp.
        through_scores = 0.0 if name == "lse" else score_eps * terms["lse"]
        allowed = 2 * plain_error + 2 * (eps + through_scores) * terms[name]
        assert error <= allowed, (
            f"{name} must be within {allowed:.3g} of float64, got {error:.3g}; "
            f"plain {problem.dtype} is {plain_error:.3g} off; {problem}"
        )
