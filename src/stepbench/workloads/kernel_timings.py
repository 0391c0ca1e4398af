"""Our kernels alone and whole implementations, timed on this GPU, with what `limits` predicts beside them.

Of each kernel the likeliest two tiles and the shipped one are timed, so that the prediction can be judged and refitted
(`stepbench kernels --refit`); of the implementations ours, its rewrites, and those that they have to beat.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import torch
import triton

from stepbench.architectures import architecture_of, sixteen_bits
from stepbench.kernels import api
from stepbench.kernels.triton import tune
from stepbench.kernels.triton.candidates import Candidate, Problem, likeliest
from stepbench.kernels.triton.compiling import SHARED_BYTES
from stepbench.kernels.triton.tiles import KERNELS, Plan, Tile, plan_for
from stepbench.workloads import attention_check

HEAD_DIMS, CONTEXTS = (64, 128), (2048, 16_384)
TOP = 2
# What each of ours launches in its forward and its backward pass, but for row statistics, which are not predicted.
TWO_PASSES = ("backward_keys", "backward_queries")
OURS = {
    "triton": (("forward",), TWO_PASSES),
    "triton_one_loop": (("forward_one_loop",), TWO_PASSES),
    "triton_reduced": (("forward",), ("backward_reduced",)),
}
RIVALS = ("sdpa_flash", "sdpa_cudnn")
PASSES = ("forward", "backward")
GLUON_CAPABILITY, GLUON_HEAD_DIM, GLUON_TRITON = (9, 0), 128, "3.7."  # what `gluon_forward` is written for

Line = dict[str, Any]
Predicted = dict[tuple[str, int], list[Candidate]]


def problems() -> list[Problem]:
    """Return what is timed: in 16 bits and causal, at the size of the papers' figures."""
    dtype = sixteen_bits(torch.cuda.get_device_capability())
    return [Problem(head_dim, dtype, context=context) for context in CONTEXTS for head_dim in HEAD_DIMS]


def describe() -> Line:
    """Return what `--refit` has to know of this machine."""
    capability = torch.cuda.get_device_capability()
    return {
        "device": torch.cuda.get_device_name(),
        "architecture": f"sm_{capability[0]}{capability[1]}",
        "multiprocessors": torch.cuda.get_device_properties().multi_processor_count,
        "torch": str(torch.__version__),
        "triton": triton.__version__,
    }


def measure(asked: Sequence[Problem], *, keep: Callable[[Line], None], deadline: float) -> int:
    """Time kernels and implementations, the first problem first, until `deadline` on the monotonic clock.

    Args:
        asked: problems.
        keep: called with a line as soon as it is known: `kernel` with `tile`, or `implementation` with `pass`, the
            problem, and `seconds` and `predicted_s`, or `failed` with a sentence.
        deadline: no timing is begun after it.

    Returns:
        How many timings are left.
    """
    capability = torch.cuda.get_device_capability()
    architecture, target = architecture_of(capability), f"sm_{capability[0]}{capability[1]}"
    target = target if target in SHARED_BYTES else architecture
    plans = {problem: plan_for(architecture, problem.head_dim, problem.dtype, problem.is_causal) for problem in asked}
    left = 0
    with ProcessPoolExecutor(tune.processes(), mp_context=get_context("spawn")) as pool:
        jobs: dict[tuple[str, int], list[Future[list[Candidate]]]] = {}
        for problem, plan in plans.items():
            for kernel, tiles in _tiles(problem, plan).items():
                key = kernel, problem.head_dim
                if key not in jobs:
                    jobs[key] = tune.start_appraising(pool, target, *key, problem.dtype, tiles, plan.descriptors)
        for problem, plan in plans.items():
            left += _kept(_timings(problem, plan, jobs), keep, deadline)
        # Last of all: a kernel whose barrier is never met holds the GPU until this process is killed.
        left += _kept(_experimental(asked, capability), keep, deadline)
        pool.shutdown(wait=True, cancel_futures=True)
    return left


def _kept(timings: Iterable[tuple[Line, Callable[[], Line]]], keep: Callable[[Line], None], deadline: float) -> int:
    """Make timings until the deadline; return how many are left."""
    left = 0
    for about, work in timings:
        if time.monotonic() > deadline:
            left += 1
            continue
        try:
            found = work()
        except Exception as error:  # one that fails costs only itself
            found = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        keep({**about, **found})
    return left


def _tiles(problem: Problem, plan: Plan) -> dict[str, list[Tile]]:
    """Return the tiles of each kernel that are compiled: the likeliest, and the shipped one."""
    shipped = {kernel: tile for kernel in KERNELS if (tile := getattr(plan, kernel)) is not None}
    found = {}
    for kernel, tile in shipped.items():
        first = likeliest(kernel, problem.head_dim, problem.dtype, tile)
        found[kernel] = list(dict.fromkeys([*first[:TOP], tile]))
    return {**found, "forward_one_loop": [plan.forward]}


def _timings(
    problem: Problem, plan: Plan, jobs: dict[tuple[str, int], list[Future[list[Candidate]]]]
) -> Iterator[tuple[Line, Callable[[], Line]]]:
    """Yield what is timed, and a call that times it: kernels first, implementations then, the rewrites last."""
    where = _where(problem)

    def compiled(kernel: str, tile: Tile) -> Candidate | None:
        every = [each for job in jobs[kernel, problem.head_dim] for each in job.result()]
        return next((each for each in every if each.tile == tile), None)

    def alone(kernel: str, tile: Tile) -> Line:
        """Time one kernel; raise where it does not compile without a spill, or is not exact."""
        candidate = compiled(kernel, tile)
        if candidate is None:
            raise RuntimeError("it spills or does not compile here")
        timings = tune.timed(problem, kernel, plan, [candidate])
        if not timings:
            raise RuntimeError("its result is further from float64 than it may be")
        return {"seconds": timings[0].seconds, "predicted_s": timings[0].predicted_s}

    for kernel, tiles in _tiles(problem, plan).items():
        for tile in tiles if kernel in KERNELS else ():
            about = {"kernel": kernel, "tile": tile.shape, "descriptors": plan.descriptors, **where}
            yield about, lambda kernel=kernel, tile=tile: alone(kernel, tile)  # type: ignore[misc]

    def predicted(name: str, number: int) -> float | None:
        """Return the predicted time of all kernels of a pass, or None where one of them has none."""
        total = 0.0
        for kernel in OURS[name][number] if name in OURS else ():
            found = compiled(kernel, plan.forward if kernel == "forward_one_loop" else getattr(plan, kernel))
            seconds = None if found is None else found.predicted_s(problem)
            if seconds is None:
                return None
            total += seconds
        return total or None

    def whole(name: str, number: int) -> Line:
        return {"seconds": timed_pass(name, problem, PASSES[number]), "predicted_s": predicted(name, number)}

    for name in (*RIVALS, *OURS):
        reason = api.unsupported_reason(
            name, device="cuda", dtype=getattr(torch, problem.dtype), head_dim=problem.head_dim,
            q_len=problem.context, is_causal=problem.is_causal,
        )  # fmt: skip
        for number, passed in enumerate(PASSES):
            about = {"implementation": name, "pass": passed, **where}
            if reason is not None:
                yield about, lambda reason=reason: {"failed": reason}  # type: ignore[misc]
            else:
                yield about, lambda name=name, number=number: whole(name, number)  # type: ignore[misc]


def _where(problem: Problem) -> Line:
    return {
        "head_dim": problem.head_dim, "dtype": problem.dtype, "causal": problem.is_causal,
        "context": problem.context, "tokens": problem.tokens, "width": problem.width,
    }  # fmt: skip


def _experimental(asked: Sequence[Problem], capability: tuple[int, int]) -> Iterator[tuple[Line, Callable[[], Line]]]:
    """Yield the forward pass of the kernel in Gluon, where it can run; `limits` does not know its shape."""
    if capability != GLUON_CAPABILITY or not triton.__version__.startswith(GLUON_TRITON):
        return
    for problem in asked:
        if problem.head_dim == GLUON_HEAD_DIM:
            about = {"implementation": "gluon", "pass": "forward", **_where(problem)}
            yield about, lambda problem=problem: {"seconds": timed_gluon(problem), "predicted_s": None}  # type: ignore[misc]


def timed_gluon(problem: Problem) -> float:
    """Return the median time of the kernel in Gluon, in seconds, after checking it at a smaller shape.

    Raises:
        RuntimeError: it does not compute attention.
    """
    from stepbench.kernels.triton import gluon_forward  # late: Gluon is not in every Triton

    scale, options = problem.head_dim**-0.5, {"is_causal": problem.is_causal}
    q, k, v, _ = replace(problem, context=512, tokens=512, width=2 * problem.head_dim).inputs()
    o, _ = gluon_forward.forward(q, k, v, scale, problem.is_causal)
    exact = api.bind("reference")(q.double(), k.double(), v.double(), **options)
    if not tune.within(o, api.bind("naive")(q, k, v, **options), exact, 4 * torch.finfo(q.dtype).eps):
        raise RuntimeError("its result is further from float64 than it may be")
    q, k, v, _ = problem.inputs()
    return _median_s(lambda: gluon_forward.forward(q, k, v, scale, problem.is_causal))


def timed_pass(name: str, problem: Problem, passed: str) -> float:
    """Return the median time of a pass of an implementation, in seconds, after checking it at a smaller shape.

    Raises:
        stepbench.measure.measurement.WrongResultError: it does not compute attention.
    """
    call = api.bind(name)
    q, k, v, do = _inputs(replace(problem, context=320, tokens=320, width=2 * problem.head_dim))
    attention_check.errors(
        lambda: call(q, k, v, is_causal=problem.is_causal), (q, k, v), do, causal=problem.is_causal,
        exact=api.bind("reference"), plain=api.bind("naive"),
    )  # fmt: skip
    q, k, v, do = _inputs(problem)
    if passed == "forward":
        return _median_s(lambda: call(q, k, v, is_causal=problem.is_causal))
    o = call(q, k, v, is_causal=problem.is_causal)
    return _median_s(lambda: torch.autograd.grad(o, (q, k, v), do, retain_graph=True))


def _inputs(problem: Problem) -> tuple[torch.Tensor, ...]:
    q, k, v, do = problem.inputs()
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_(), do


def _median_s(work: Callable[[], object]) -> float:
    return float(triton.testing.do_bench(work, warmup=10, rep=50, return_mode="median")) / 1e3


def sentence(line: Line) -> str:
    """Return a line of `measure` as it is shown."""
    what = f"{line['kernel']} {Tile(*line['tile'])}" if "kernel" in line else f"{line['implementation']} {line['pass']}"
    heads = line["width"] // line["head_dim"]
    shape = f"{line['context']}, {heads} × {line['head_dim']}{', causal' if line['causal'] else ''}"
    if "failed" in line:
        return f"{what} at {shape}: {line['failed']}"
    measured, predicted = line["seconds"], line["predicted_s"]
    beside = "" if predicted is None else f", {predicted * 1e3:.3f} ms predicted ({predicted / measured - 1:+.0%})"
    return f"{what} at {shape}: {measured * 1e3:.3f} ms{beside}"
