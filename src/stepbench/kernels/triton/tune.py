"""Search for the fastest tile shapes on a GPU, and write them into the table.

This is the only place that searches. Candidates are compiled first, on all cores (`candidates`). One whose result is
not as close to float64 as the plain computation's is out. What is left is timed one kernel at a time, with the
second-level cache flushed before every repeat (`triton.testing.do_bench`), and the median decides.

The likeliest five of every kernel of every problem are compiled and timed before any other, in the order that `limits`
predicts where it knows the architecture. The table is written after each problem, so that what ends this early leaves
the best that was found.
"""

import datetime
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from stepbench.architectures import architecture_of
from stepbench.kernels import naive, reference
from stepbench.kernels.triton import launch
from stepbench.kernels.triton.candidates import Candidate, Problem, appraise, in_order, likeliest, others
from stepbench.kernels.triton.compiling import SHARED_BYTES
from stepbench.kernels.triton.tiles import (
    KERNELS,
    TABLE,
    Plan,
    Tile,
    plan_for,
    read_table,
    row_key,
    slice_of,
    triton_series,
    write_table,
)


def tune(
    problems: Sequence[Problem], *, path: Path = TABLE, report: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Tune every kernel for every problem and rewrite these rows of this device's table, after each problem.

    Args:
        problems: rows of the table, each at the shape that it is tuned for.
        path: the table.
        report: called with a line for every choice.

    Returns:
        The architecture's part of the table, as it was written. Rows that were tuned hold the medians in seconds of
        their tiles, and of every candidate the tile, its median and what was predicted (`timed`).

    Raises:
        RuntimeError: there is no CUDA device, or no candidate of a kernel is left.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("tuning needs a CUDA device, got none")
    capability = torch.cuda.get_device_capability()
    architecture, target = architecture_of(capability), f"sm_{capability[0]}{capability[1]}"
    target = target if target in SHARED_BYTES else architecture
    plans = {p: plan_for(architecture, p.head_dim, p.dtype, p.is_causal, path) for p in problems}
    shipped = dict(plans)
    timings: dict[tuple[Problem, str], list[Timing]] = {}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for is_first in (True, False):
            jobs: dict[tuple[str, int, str], list[Future[list[Candidate]]]] = {}
            for problem in problems:
                for kernel in _kernels_of(plans[problem]):
                    first = likeliest(kernel, problem.head_dim, problem.dtype, getattr(shipped[problem], kernel))
                    tiles = first if is_first else others(kernel, problem.dtype, first)
                    key = kernel, problem.head_dim, problem.dtype
                    if key not in jobs:
                        jobs[key] = start_appraising(pool, target, *key, tiles, plans[problem].descriptors)
            for problem in problems:
                for kernel in _kernels_of(plans[problem]):
                    found = [each for job in jobs[kernel, problem.head_dim, problem.dtype] for each in job.result()]
                    so_far = timings.setdefault((problem, kernel), [])
                    timed_before = {timing.tile for timing in so_far}
                    new = [each for each in found if each.tile not in timed_before]
                    ordered = in_order(new, problem, getattr(shipped[problem], kernel))
                    so_far += timed(problem, kernel, plans[problem], ordered)
                    best = fastest(so_far, f"{kernel} of {problem}")
                    plans[problem] = with_tile(plans[problem], kernel, best.tile)
                    report(
                        f"{architecture} {problem} {kernel}: {best.tile}, {best.seconds * 1e3:.3f} ms, "
                        f"{_beside(best)}best of {len(so_far)}"
                    )
                row = row_of(problem, {kernel: timings.get((problem, kernel), []) for kernel in KERNELS})
                table = merged(read_table(path), architecture, [row], machine=torch.cuda.get_device_name())
                write_table(table, path)
    section: dict[str, Any] = read_table(path)[architecture]
    return section


@dataclass(frozen=True)
class Timing:
    """A candidate's median, and what was predicted; in seconds."""

    tile: Tile
    seconds: float
    predicted_s: float | None


def _beside(timing: Timing) -> str:
    return "" if timing.predicted_s is None else f"{timing.predicted_s * 1e3:.3f} ms predicted, "


def merged(
    table: dict[str, Any], architecture: str, tuned: Sequence[dict[str, Any]], *, machine: str
) -> dict[str, Any]:
    """Return the table with new rows in the place of those that this Triton uses for the same problems.

    A row that names a version of Triton stays as it is for that version; one that names none is what other versions
    use, so the new row names the version it was measured with if the one that it replaces did.
    """
    series = triton_series()
    rows = list(table[architecture]["rows"])
    for row in tuned:
        old = [each for each in rows if row_key(each) == row_key(row)]
        own = [each for each in old if each.get("triton") == series]
        replaced = own or [each for each in old if "triton" not in each]
        new = {**row, "triton": series} if own else row
        rows = [*(each for each in rows if each not in replaced), new]
    section = {
        **table[architecture],
        "origin": "rows with seconds: measured by stepbench tune, with these versions; others: as they were before",
        "machine": machine,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "rows": rows,
    }
    return {**table, architecture: section}


def timed(problem: Problem, kernel: str, plan: Plan, candidates: Sequence[Candidate]) -> list[Timing]:
    """Time one kernel with every candidate that computes correctly; return them with their medians."""
    q, k, v, do = problem.inputs()
    timings = []
    for candidate in candidates:
        own = with_tile(plan, kernel, candidate.tile)
        if _is_exact(problem, kernel, own):
            call = _call(kernel, own, problem, q, k, v, do)
            seconds = triton.testing.do_bench(call, warmup=10, rep=50, return_mode="median") / 1e3
            timings.append(Timing(candidate.tile, seconds, candidate.predicted_s(problem)))
    return timings


def fastest(timings: Sequence[Timing], what: str) -> Timing:
    """Return the fastest.

    Raises:
        RuntimeError: there is none.
    """
    if not timings:
        raise RuntimeError(f"one tile must compute {what} correctly, got none")
    return min(timings, key=lambda timing: timing.seconds)


def with_tile(plan: Plan, kernel: str, tile: Tile) -> Plan:
    """Return the plan with another tile for one kernel."""
    return replace(plan, **{kernel: tile})  # type: ignore[arg-type]


def _kernels_of(plan: Plan) -> list[str]:
    return [kernel for kernel in KERNELS if getattr(plan, kernel) is not None]


def start_appraising(
    pool: ProcessPoolExecutor, target: str, kernel: str, head_dim: int, dtype: str, tiles: Sequence[Tile],
    descriptors: bool,
) -> list[Future[list[Candidate]]]:  # fmt: skip
    """Start compiling candidates; that also fills Triton's cache."""
    return [
        pool.submit(
            appraise, kernel=kernel, architecture=target, head_dim=head_dim, dtype=dtype, tile=tile,
            descriptors=descriptors and dtype != "float32",
        )
        for tile in tiles
    ]  # fmt: skip


def _call(
    kernel: str, plan: Plan, problem: Problem, q: Tensor, k: Tensor, v: Tensor, do: Tensor
) -> Callable[[], object]:
    """Return a call of one kernel alone."""
    scale = problem.head_dim**-0.5
    if kernel == "forward":
        return lambda: launch.forward(q, k, v, scale, problem.is_causal, plan)
    o, lse = launch.forward(q, k, v, scale, problem.is_causal, plan)
    sizes = launch.Sizes.of(q, k, problem.is_causal)
    descriptors, tensors = launch.readable(plan, q, k, v, do)
    statistics = launch.row_statistics(sizes, do, None, o, lse, plan)
    operands = launch.Operands(sizes, tensors, statistics, descriptors, scale)
    dq, dk, dv = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
    if kernel == "backward_queries":
        return lambda: launch.queries_pass(operands, plan.backward_queries, dq)
    if kernel == "backward_keys":
        return lambda: launch.keys_pass(operands, plan.backward_keys, None, dk, dv)
    reduced = kernel == "backward_reduced"
    fused, dq = plan.backward_reduced if reduced else plan.backward_fused, torch.zeros_like(q, dtype=torch.float32)
    assert fused  # noqa: S101 - a candidate
    return lambda: launch.keys_pass(operands, fused, dq, dk, dv, reduced=reduced)


def _is_exact(problem: Problem, kernel: str, plan: Plan) -> bool:
    """Tell whether a small problem comes out as close to float64 as the plain computation, or nearly."""
    q, k, v, do = replace(problem, context=320, tokens=320, width=2 * problem.head_dim).inputs()
    options: dict[str, Any] = {"is_causal": problem.is_causal, "scale": problem.head_dim**-0.5}
    inputs = [[x.to(dtype).requires_grad_() for x in (q, k, v)] for dtype in (torch.float64, q.dtype)]
    outputs = [
        implementation.attention(*tensors, **options, return_lse=False)
        for implementation, tensors in zip((reference, naive), inputs, strict=True)
    ]
    exact, plain = (
        (o, *torch.autograd.grad(o, tensors, do.to(o.dtype))) for o, tensors in zip(outputs, inputs, strict=True)
    )
    o, lse = launch.forward(q, k, v, options["scale"], problem.is_causal, plan)
    gradients = launch.backward(
        do, None, q, k, v, o, lse, options["scale"], problem.is_causal,
        replace(plan, reduced=kernel == "backward_reduced"),
        atomics=kernel in ("backward_fused", "backward_reduced"),
    )  # fmt: skip
    # Scores are exponents, up to about 12 here, and float32: what is off in them is off in all that comes after.
    band = 4 * torch.finfo(q.dtype).eps + 2 * 12 * torch.finfo(torch.float32).eps
    return all(within(got, low, true, band) for got, low, true in zip((o, *gradients), plain, exact, strict=True))


def within(got: Tensor, plain: Tensor, exact: Tensor, band: float) -> bool:
    """Tell whether `got` is off by at most twice what `plain` is, plus `band` of the largest exact value."""
    allowed = 2 * (plain.double() - exact).abs().max() + band * exact.abs().max()
    return bool((got.double() - exact).abs().max() <= allowed)


def row_of(problem: Problem, timings: dict[str, list[Timing]]) -> dict[str, Any]:
    """Return the row of the table for a problem; float32 rows are those of a slice's width.

    Args:
        problem: what was tuned for.
        timings: of each kernel, none where there is no such kernel.
    """
    best = {kernel: fastest(found, kernel) for kernel, found in timings.items() if found}
    return {
        **_head_of(problem),
        "seconds": {kernel: timing.seconds for kernel, timing in best.items()},
        "predicted_s": {kernel: timing.predicted_s for kernel, timing in best.items()},
        "timed": {
            kernel: [[each.tile.shape, each.seconds, each.predicted_s] for each in found]
            for kernel, found in timings.items() if found
        },
        "problem": {name: asdict(problem)[name] for name in ("context", "tokens", "width")},
        **{kernel: best[kernel].tile.shape if kernel in best else None for kernel in timings},
    }  # fmt: skip


def _head_of(problem: Problem) -> dict[str, Any]:
    head_dim = slice_of(problem.head_dim) if problem.dtype == "float32" else problem.head_dim
    return {"head_dim": head_dim, "dtype": problem.dtype, "causal": problem.is_causal}


def shipped_problems(head_dims: Sequence[int] = (64, 128), dtypes: Sequence[str] = ("bfloat16",)) -> Iterator[Problem]:
    """Yield the problems that the paper's figures show, causal and not; the first one of every row of the table."""
    found: dict[tuple[Any, ...], Problem] = {}
    for head_dim, dtype, is_causal in itertools.product(head_dims, dtypes, (True, False)):
        problem = Problem(head_dim, dtype, is_causal)
        found.setdefault(row_key(_head_of(problem)), problem)
    yield from found.values()
