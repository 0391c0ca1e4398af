"""Every head against float64, with what it may keep in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from tests.testing.interpreter import Call
from torch import Tensor
from torch.nn import functional as F

from stepbench import versions
from stepbench.kernels.heads import api, chunked, whole
from stepbench.kernels.heads.contract import IGNORED
from stepbench.kernels.heads.names import HEADS, modules
from stepbench.measure.predicted_memory import StorageWatcher
from stepbench.versions import FakeTensorMode

OF_TORCH = pytest.param(
    "torch", marks=pytest.mark.skipif(not versions.HAS_LINEAR_CROSS_ENTROPY, reason="torch 2.13 has it")
)


@dataclass(frozen=True)
class Problem:
    """One head and loss; its tensors follow from it, so that two processes can build the same ones."""

    tokens: int = 70
    vocabulary: int = 301
    width: int = 24
    dtype: str = "float32"
    ignored: int = 0

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return hidden states, weight and targets; the first two require gradients."""
        generator = torch.Generator().manual_seed(self.tokens)
        x, weight = (
            torch.randn(rows, self.width, generator=generator).to(getattr(torch, self.dtype)).requires_grad_()
            for rows in (self.tokens, self.vocabulary)
        )
        targets = torch.randint(self.vocabulary, (self.tokens,), generator=generator)
        targets[: self.ignored] = IGNORED
        return x, weight, targets


def differentiate(loss: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
    gradients = torch.autograd.grad(loss * 3, inputs)  # of a loss that is scaled, as a gradient scaler does
    return {name: value.detach().double() for name, value in zip(("loss", "dx", "dw"), (loss, *gradients), strict=True)}


def run(name: str, problem: Problem) -> dict[str, np.ndarray]:
    """Return loss and gradients of a head, to be called in another process as well."""
    x, weight, targets = problem.inputs()
    found = differentiate(api.bind(name)(x, weight, targets), x, weight)
    return {name: value.numpy() for name, value in found.items()}


def assert_as_exact_as_whole(got: dict[str, np.ndarray], problem: Problem) -> None:
    """Hold loss and gradients against float64.

    Allowed is twice what all logits at once in the same dtype are off, and a band for rounding that they may have been
    spared by luck: of the terms that are summed up, and of a logit, which is an exponent.
    """
    x, weight, targets = problem.inputs()
    low = differentiate(whole.loss(x, weight, targets), x, weight)
    x, weight = (each.detach().double().requires_grad_() for each in (x, weight))
    exact = differentiate(whole.loss(x, weight, targets), x, weight)
    with torch.no_grad():
        counted = targets != IGNORED
        logits = x @ weight.T
        g = logits.softmax(-1)
        g = (g + F.one_hot(targets.where(counted, 0), problem.vocabulary)) * counted[:, None] * 3 / counted.sum()
        size = (x.abs() @ weight.abs().T).max()
        terms = {"loss": size, "dx": (g @ weight.abs()).max(), "dw": (g.T @ x.abs()).max()}
    eps = torch.finfo(getattr(torch, problem.dtype)).eps
    for name, value in got.items():
        error, plain = (float((torch.as_tensor(each) - exact[name]).abs().max()) for each in (value, low[name]))
        through_logits = 0.0 if name == "loss" else eps * float(size)
        allowed = 2 * plain + 2 * (eps + through_logits) * float(terms[name])
        assert error <= allowed, (
            f"{name} must be within {allowed:.3g}, got {error:.3g}; whole is {plain:.3g} off; {problem}"
        )


PROBLEMS = [
    Problem(),
    Problem(ignored=69),
    Problem(tokens=1),
    Problem(vocabulary=2),
    Problem(dtype="bfloat16", ignored=3),
    Problem(tokens=1100, vocabulary=130, ignored=5),  # three chunks, the last of which is shorter
    Problem(tokens=1100, vocabulary=130, dtype="bfloat16"),
    Problem(tokens=600, vocabulary=9000, dtype="float16"),  # whose probabilities are below its smallest normal number
]


@pytest.mark.parametrize("problem", PROBLEMS, ids=str)
def test_chunked_is_as_exact_as_whole(problem: Problem) -> None:
    assert_as_exact_as_whole(run("chunked", problem), problem)


@pytest.mark.skipif(not versions.HAS_LINEAR_CROSS_ENTROPY, reason="torch 2.13 has it")
@pytest.mark.parametrize("problem", [Problem(ignored=5), Problem(tokens=1), Problem(tokens=1100, vocabulary=130)])
def test_torchs_own_is_as_exact_as_whole(problem: Problem) -> None:
    assert_as_exact_as_whole(run("torch", problem), problem)


@pytest.mark.parametrize(
    "problem",
    [
        Problem(tokens=9, vocabulary=4096 * 2 + 7, width=8, ignored=2),
        Problem(tokens=9, vocabulary=4096 + 1, width=8, dtype="bfloat16", ignored=2),
        Problem(tokens=9, vocabulary=4096, width=8, dtype="float16"),
        Problem(tokens=1, vocabulary=50, width=8, dtype="bfloat16"),
    ],
    ids=str,
)
def test_the_triton_kernel_is_as_exact_as_whole(interpreted: Call, problem: Problem) -> None:
    """A vocabulary that is a multiple of the tile, and not one; ignored targets, one token."""
    assert_as_exact_as_whole(interpreted(run, "triton", problem), problem)


@pytest.mark.parametrize("name", ["whole", "chunked", OF_TORCH])
def test_it_is_one_graph_for_torch_compile(name: str) -> None:
    x, weight, targets = Problem(tokens=600).inputs()
    loss = api.bind(name)
    eager, compiled = (
        differentiate(each(x, weight, targets), x, weight)
        for each in (loss, torch.compile(loss, backend="aot_eager", fullgraph=True))
    )
    torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["whole", "chunked"])
def test_autocast_decides_the_logits_dtype_and_not_that_of_gradients(name: str) -> None:
    problem = Problem(tokens=600)
    x, weight, targets = problem.inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = api.bind(name)(x, weight, targets)
    gradients = torch.autograd.grad(low, (x, weight))
    assert {low.dtype, *(each.dtype for each in gradients)} == {torch.float32}
    exact = api.bind(name)(x, weight, targets)
    assert low != exact
    assert low.item() == pytest.approx(exact.item(), rel=0.01)


@pytest.mark.parametrize("name", ["whole", "chunked", OF_TORCH])
def test_a_weight_that_is_the_embedding_as_well_gets_both_gradients(name: str) -> None:
    _, weight, targets = Problem().inputs()
    found = []
    for loss, dtype in ((api.bind(name), torch.float32), (whole.loss, torch.float64)):
        tied = weight.detach().to(dtype).requires_grad_()
        found += torch.autograd.grad(loss(F.embedding(targets, tied), tied, targets), tied)
    torch.testing.assert_close(found[0].double(), found[1], rtol=1e-5, atol=1e-6)


def test_only_what_needs_a_gradient_gets_one() -> None:
    x, weight, targets = Problem().inputs()
    expected = differentiate(whole.loss(x, weight, targets), x, weight)
    with torch.no_grad():
        assert float(api.bind("chunked")(x, weight, targets)) == pytest.approx(float(expected["loss"]))
    (dx,) = torch.autograd.grad(3 * api.bind("chunked")(x, weight.detach(), targets), x)
    torch.testing.assert_close(dx.double(), expected["dx"], rtol=1e-5, atol=1e-6)
    (dw,) = torch.autograd.grad(3 * api.bind("chunked")(x.detach(), weight, targets), weight)
    torch.testing.assert_close(dw.double(), expected["dw"], rtol=1e-5, atol=1e-6)


def test_a_second_backward_pass_is_refused() -> None:
    x, weight, targets = Problem().inputs()
    loss = api.bind("chunked")(x, weight, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


# -- memory ------------------------------------------------------------------------------------------------------------


def allocated(name: str, problem: Problem) -> tuple[int, int]:
    """Return the peak of what a head allocates beside the gradients, and the largest allocation, in bytes."""
    x, weight, targets = problem.inputs()
    with StorageWatcher() as watcher:
        watcher._alive |= {each.untyped_storage()._cdata: None for each in (x, weight, targets)}  # type: ignore[dict-item]
        api.bind(name)(x, weight, targets).backward()
    level, peak, largest = 0, 0, 0
    for change in watcher._changes:
        level += change.delta_bytes
        peak, largest = max(peak, level), max(largest, change.delta_bytes)
    return peak - x.nbytes - weight.nbytes, largest


@pytest.mark.parametrize("width", [128, 768])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_peak_is_a_fraction_of_wholes(dtype: str, width: int) -> None:
    problem = Problem(4096, 50_257, width, dtype)
    with FakeTensorMode():
        (all_at_once, logits), (peak, largest) = (allocated(name, problem) for name in ("whole", "chunked"))
    assert logits == 4096 * 50_257 * 4
    assert peak <= 0.15 * all_at_once
    assert largest <= max(logits / 8, 50_257 * width * 4)


def test_the_prediction_is_what_is_allocated() -> None:
    problem = Problem(2048, 1000, 16)
    with FakeTensorMode():
        predicted = allocated("chunked", problem)
    assert predicted == allocated("chunked", problem)
    assert predicted[1] == 2048 / 4 * 1000 * 4


@pytest.mark.parametrize(("tokens", "size"), [(1, 512), (4096, 512), (8192, 1024), (65_536, 4096)])
def test_there_are_eight_chunks_as_far_as_their_length_allows(tokens: int, size: int) -> None:
    assert chunked.tokens_per_chunk(tokens) == size


# -- names -------------------------------------------------------------------------------------------------------------


def test_an_unknown_head_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="`head` must be one of whole, chunked, triton, torch, got 'fused'"):
        api.bind("fused")
    assert modules("chunked", "whole", "chunked") == (
        "stepbench.kernels.heads.chunked",
        "stepbench.kernels.heads.whole",
    )


def test_what_cannot_run_says_why() -> None:
    for name in HEADS:
        reason = api.unsupported_reason(name, device="cpu", dtype=torch.int64)
        assert reason is not None
        assert "needs" in reason
    assert api.unsupported_reason("triton", device="cpu", dtype=torch.float32) == (
        "the head triton needs a CUDA device, got cpu"
    )
    if versions.HAS_LINEAR_CROSS_ENTROPY:
        assert api.unsupported_reason("torch", device="cpu", dtype=torch.bfloat16) == (
            "the head torch rounds the loss to bfloat16, got logits of that dtype"
        )
