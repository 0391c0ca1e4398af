"""Search for the fastest tile shapes on a GPU, and write them into the table.

This is the only place that searches. Candidates are compiled first, on all cores (`candidates`). One whose result is
not as close to float64 as the plain computation's is out. What is left is timed one kernel at a time, with the
second-level cache flushed before every repeat (`triton.testing.do_bench`), and the median decides.

The likeliest five of every kernel of every problem are compiled and timed before any other, in the order that `limits`
predicts where it knows the architecture, and problems without a measured row before the others. The table is written
after each problem, so that what ends this early leaves the best that was found.
"""

import itertools
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import replace
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
from stepbench.kernels.triton.layouts import ALIGNMENT, readable
from stepbench.kernels.triton.tiles import KERNELS, TABLE, Plan, Tile, plan_for, read_table, row_key, write_table
from stepbench.kernels.triton.tuned import Timing, fastest, head_of, is_measured, merged, row_of

MOST_PROCESSES = 16


def tune(
    problems: Sequence[Problem],
    *,
    path: Path = TABLE,
    deadline: float = math.inf,
    report: Callable[[str], None] = lambda line: None,
) -> int:
    """Tune every kernel for every problem and rewrite these rows of this device's table, after each problem.

    Rows that were tuned hold the medians in seconds of their tiles, and of every candidate the tile, its median and
    what was predicted (`timed`).

    Args:
        problems: rows of the table, each at the shape that it is tuned for.
        path: the table.
        deadline: no candidate is timed after it, on the monotonic clock.
        report: called with a line for every choice.

    Returns:
        How many searches the deadline has cut short, of two for each problem: the likeliest tiles, and all others.

    Raises:
        RuntimeError: there is no CUDA device, or no candidate of a kernel is left.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("tuning needs a CUDA device, got none")
    capability = torch.cuda.get_device_capability()
    architecture, target = architecture_of(capability), f"sm_{capability[0]}{capability[1]}"
    target = target if target in SHARED_BYTES else architecture
    section, machine = read_table(path)[architecture], torch.cuda.get_device_name()
    if section["machine"] not in (None, machine):
        report(f"{architecture}: tile shapes that were measured on {section['machine']} are replaced")
    problems = sorted(problems, key=lambda problem: is_measured(section, machine, [problem]))
    plans = {p: plan_for(architecture, p.head_dim, p.dtype, p.is_causal, path) for p in problems}
    timings: dict[Problem, dict[str, list[Timing]]] = {problem: {} for problem in problems}
    shipped, left = dict(plans), 0
    with ProcessPoolExecutor(processes(), mp_context=get_context("spawn")) as pool:
        for is_first in (True, False):
            jobs = _start_all(pool, target, shipped, is_first=is_first) if time.monotonic() < deadline else {}
            for problem in problems:
                for kernel in _kernels_of(plans[problem]):
                    so_far = timings[problem].setdefault(kernel, [])
                    found = _until(deadline, jobs.get((kernel, problem.head_dim, problem.dtype), []))
                    timed_before = {timing.tile for timing in so_far}
                    new = [each for each in found if each.tile not in timed_before]
                    ordered = in_order(new, problem, getattr(shipped[problem], kernel))
                    so_far += timed(problem, kernel, plans[problem], ordered, deadline=deadline)
                    if not so_far and time.monotonic() >= deadline:
                        continue
                    best = fastest(so_far, f"{kernel} of {problem}")
                    plans[problem] = with_tile(plans[problem], kernel, best.tile)
                    report(
                        f"{architecture} {problem} {kernel}: {best.tile}, {best.seconds * 1e3:.3f} ms, "
                        f"{_beside(best)}best of {len(so_far)}"
                    )
                left += time.monotonic() >= deadline
                if all(timings[problem].values()):
                    row = row_of(problem, {kernel: timings[problem].get(kernel, []) for kernel in KERNELS})
                    write_table(merged(read_table(path), architecture, [row], machine=machine), path)
        pool.shutdown(wait=True, cancel_futures=True)
    return left


def processes() -> int:
    """Return how many processes compile at a time, each with half a GiB of torch and triton: one for each core."""
    return min(len(os.sched_getaffinity(0)), MOST_PROCESSES)


def _start_all(
    pool: ProcessPoolExecutor, target: str, plans: dict[Problem, Plan], *, is_first: bool
) -> dict[tuple[str, int, str], list[Future[list[Candidate]]]]:
    """Start compiling the likeliest candidates of every kernel, or all others; those that problems share once."""
    jobs: dict[tuple[str, int, str], list[Future[list[Candidate]]]] = {}
    for problem, plan in plans.items():
        for kernel in _kernels_of(plan):
            first = likeliest(kernel, problem.head_dim, problem.dtype, getattr(plan, kernel))
            tiles = first if is_first else others(kernel, problem.dtype, first)
            key = kernel, problem.head_dim, problem.dtype
            if key not in jobs:
                jobs[key] = start_appraising(pool, target, *key, tiles, plan.descriptors)
    return jobs


def _until(deadline: float, jobs: Sequence[Future[list[Candidate]]]) -> list[Candidate]:
    """Return the candidates that are compiled at the deadline."""
    wait(jobs, timeout=None if deadline == math.inf else max(deadline - time.monotonic(), 0.0))
    return [each for job in jobs if job.done() for each in job.result()]


def _beside(timing: Timing) -> str:
    return "" if timing.predicted_s is None else f"{timing.predicted_s * 1e3:.3f} ms predicted, "


def timed(
    problem: Problem, kernel: str, plan: Plan, candidates: Sequence[Candidate], *, deadline: float = math.inf
) -> list[Timing]:
    """Time one kernel with every candidate that computes correctly, until the deadline; return their medians."""
    q, k, v, do = problem.inputs()
    timings = []
    for candidate in candidates:
        if time.monotonic() >= deadline:
            break
        own = with_tile(plan, kernel, candidate.tile)
        if _is_exact(problem, kernel, own):
            call = _call(kernel, own, problem, q, k, v, do)
            seconds = triton.testing.do_bench(call, warmup=10, rep=50, return_mode="median") / 1e3
            timings.append(Timing(candidate.tile, seconds, candidate.predicted_s(problem)))
    return timings


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
    descriptors, tensors = readable(plan, q, k, v, do)
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


def shipped_problems(head_dims: Sequence[int] = (64, 128), dtypes: Sequence[str] = ("bfloat16",)) -> Iterator[Problem]:
    """Yield the problems that the paper's figures show, causal and not; the first one of every row of the table.

    Raises:
        ValueError: a head dim is one that no kernel is compiled for.
    """
    if unaligned := [head_dim for head_dim in head_dims if head_dim % ALIGNMENT]:
        raise ValueError(
            f"`head_dim` must be a multiple of {ALIGNMENT}, which others are padded to, got {unaligned[0]}"
        )
    found: dict[tuple[Any, ...], Problem] = {}
    for head_dim, dtype, is_causal in itertools.product(head_dims, dtypes, (True, False)):
        problem = Problem(head_dim, dtype, is_causal)
        found.setdefault(row_key(head_of(problem)), problem)
    yield from found.values()
