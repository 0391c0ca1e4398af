"""Search for the fastest tile shapes on a GPU, and write them into the table.

This is the only place that searches. Candidates are compiled first, on all cores: one that spills, whose wgmma
instructions are serialized, or that needs more shared or tensor memory than there is, is out before it runs. One whose
result is not as close to float64 as the plain computation's is out as well. What is left is timed one kernel at a
time, with the second-level cache flushed before every repeat (`triton.testing.do_bench`), and the median decides.
"""

import datetime
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from stepbench.kernels import naive, reference
from stepbench.kernels.triton import launch
from stepbench.kernels.triton.resources import SHARED_BYTES, compile_figures
from stepbench.kernels.triton.tiles import (
    KERNELS,
    TABLE,
    Plan,
    Tile,
    architecture_of,
    plan_for,
    read_table,
    slice_of,
    write_table,
)

# Rows, columns, warps, stages.
_SHAPES = {
    "forward": itertools.product((64, 128, 256), (32, 64, 128), (4, 8), (2, 3, 4)),
    "backward_keys": itertools.product((16, 32, 64, 128), (64, 128), (4, 8), (2, 3)),
    "backward_queries": itertools.product((64, 128), (32, 64, 128), (4, 8), (2, 3)),
    "backward_fused": itertools.product((32, 64, 128), (64, 128), (4, 8), (2, 3)),
}
_SINGLE_SHAPES = {
    "forward": itertools.product((64, 128), (32, 64), (4, 8), (2, 3)),
    "backward_keys": itertools.product((16, 32), (64, 128), (4, 8), (1, 2)),
    "backward_queries": itertools.product((64, 128), (16, 32), (4, 8), (1, 2)),
    "backward_fused": itertools.product((16, 32), (16, 32, 64), (4, 8), (1, 2)),
}
CANDIDATES = {name: [Tile(*shape) for shape in shapes] for name, shapes in _SHAPES.items()}
SINGLE_CANDIDATES = {name: [Tile(*shape) for shape in shapes] for name, shapes in _SINGLE_SHAPES.items()}


@dataclass(frozen=True)
class Problem:
    """What tiles are tuned for: a row of the table, at one shape.

    Attributes:
        context: Tq and Tk.
        tokens: batch · context.
        width: heads · head dim.
    """

    head_dim: int
    dtype: str = "bfloat16"
    is_causal: bool = True
    context: int = 4096
    tokens: int = 16_384
    width: int = 2048

    def inputs(self) -> tuple[Tensor, ...]:
        """Return q, k, v and a gradient of o, random, on the current GPU."""
        shape = max(self.tokens // self.context, 1), max(self.width // self.head_dim, 1), self.context, self.head_dim
        generator = torch.Generator("cuda").manual_seed(0)
        dtype = getattr(torch, self.dtype)
        return tuple(torch.randn(shape, dtype=dtype, device="cuda", generator=generator) for _ in range(4))


def tune(
    problems: Sequence[Problem], *, path: Path = TABLE, report: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Tune every kernel for every problem and rewrite these rows of this device's table.

    Args:
        problems: rows of the table, each at the shape that it is tuned for.
        path: the table.
        report: called with a line for every choice.

    Returns:
        The architecture's part of the table, as it was written. Rows that were tuned hold the medians in seconds.

    Raises:
        RuntimeError: there is no CUDA device, or no candidate of a kernel is left.
    """
    if not torch.cuda.is_available():
        raise RuntimeError("tuning needs a CUDA device, got none")
    architecture = architecture_of(torch.cuda.get_device_capability())
    tuned = []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        for problem in problems:
            plan = plan_for(architecture, problem.head_dim, problem.dtype, problem.is_causal, path)
            row = _row_of(problem)
            for kernel in KERNELS:
                if getattr(plan, kernel) is None:
                    row[kernel] = None
                    continue
                tiles = _clean(pool, kernel, architecture, problem, plan)
                tile, seconds = fastest(problem, kernel, plan, tiles)
                plan = with_tile(plan, kernel, tile)
                row[kernel] = [tile.rows, tile.columns, tile.warps, tile.stages]
                row["seconds"][kernel] = seconds
                report(f"{architecture} {problem} {kernel}: {tile}, {seconds * 1e3:.3f} ms, best of {len(tiles)}")
            tuned.append(row)
    table = merged(read_table(path), architecture, tuned, machine=torch.cuda.get_device_name())
    write_table(table, path)
    section: dict[str, Any] = table[architecture]
    return section


def merged(
    table: dict[str, Any], architecture: str, tuned: Sequence[dict[str, Any]], *, machine: str
) -> dict[str, Any]:
    """Return the table with new rows in the place of those for the same head dim, dtype and causality."""
    replaced = set(map(_key, tuned))
    kept = [row for row in table[architecture]["rows"] if _key(row) not in replaced]
    section = {
        **table[architecture],
        "origin": "rows with seconds: measured by stepbench tune, with these versions; others: as they were before",
        "machine": machine,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "rows": [*kept, *tuned],
    }
    return {**table, architecture: section}


def fastest(problem: Problem, kernel: str, plan: Plan, tiles: Sequence[Tile]) -> tuple[Tile, float]:
    """Time one kernel with every tile and return the best with its median in seconds.

    Raises:
        RuntimeError: no tile is left.
    """
    q, k, v, do = problem.inputs()
    timings: dict[Tile, float] = {}
    for tile in tiles:
        candidate = with_tile(plan, kernel, tile)
        if _is_exact(problem, kernel, candidate):
            call = _call(kernel, candidate, problem, q, k, v, do)
            timings[tile] = triton.testing.do_bench(call, warmup=10, rep=50, return_mode="median") / 1e3
    if not timings:
        raise RuntimeError(f"one tile of {kernel} must compute {problem} correctly, got none of {len(tiles)}")
    best = min(timings, key=timings.__getitem__)
    return best, timings[best]


def with_tile(plan: Plan, kernel: str, tile: Tile) -> Plan:
    """Return the plan with another tile for one kernel."""
    return replace(plan, **{kernel: tile})  # type: ignore[arg-type]


def _clean(pool: ProcessPoolExecutor, kernel: str, architecture: str, problem: Problem, plan: Plan) -> list[Tile]:
    """Return the candidates that compile to something worth running; compiling also fills Triton's cache."""
    single = problem.dtype == "float32"
    candidates = (SINGLE_CANDIDATES if single else CANDIDATES)[kernel]
    jobs = [
        pool.submit(
            compile_figures, kernel=kernel, architecture=architecture, head_dim=problem.head_dim, dtype=problem.dtype,
            tile=tile, descriptors=plan.descriptors and not single,
        )
        for tile in candidates
    ]  # fmt: skip
    limit = SHARED_BYTES[architecture][0]
    return [tile for tile, job in zip(candidates, jobs, strict=True) if is_clean(job.result, limit)]


def is_clean(figures: Callable[[], dict[str, Any]], shared_limit: int) -> bool:
    """Tell whether a candidate compiled to something worth running.

    Args:
        figures: returns what `compile_figures` found, or raises what it died of.
        shared_limit: bytes of shared memory that a program may ask for.
    """
    try:
        found = figures()
    except Exception:
        return False
    return not found["spill_bytes"] and not found["serialized"] and found["shared_bytes"] <= shared_limit


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
    fused, dq = plan.backward_fused, torch.zeros_like(q, dtype=torch.float32)
    assert fused  # noqa: S101 - a candidate
    return lambda: launch.keys_pass(operands, fused, dq, dk, dv)


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
        do, None, q, k, v, o, lse, options["scale"], problem.is_causal, plan, atomics=kernel == "backward_fused"
    )
    # Scores are exponents, up to about 12 here, and float32: what is off in them is off in all that comes after.
    band = 4 * torch.finfo(q.dtype).eps + 2 * 12 * torch.finfo(torch.float32).eps
    return all(within(got, low, true, band) for got, low, true in zip((o, *gradients), plain, exact, strict=True))


def within(got: Tensor, plain: Tensor, exact: Tensor, band: float) -> bool:
    """Tell whether `got` is off by at most twice what `plain` is, plus `band` of the largest exact value."""
    allowed = 2 * (plain.double() - exact).abs().max() + band * exact.abs().max()
    return bool((got.double() - exact).abs().max() <= allowed)


def _row_of(problem: Problem) -> dict[str, Any]:
    """Return the head of a row of the table; float32 rows are those of a slice's width."""
    head_dim = slice_of(problem.head_dim) if problem.dtype == "float32" else problem.head_dim
    return {
        "head_dim": head_dim, "dtype": problem.dtype, "causal": problem.is_causal, "seconds": {},
        "problem": {name: asdict(problem)[name] for name in ("context", "tokens", "width")},
    }  # fmt: skip


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["head_dim"], row["dtype"], row["causal"]


def shipped_problems(head_dims: Sequence[int] = (64, 128), dtypes: Sequence[str] = ("bfloat16",)) -> Iterator[Problem]:
    """Yield the problems that the paper's figures show, causal and not; the first one of every row of the table."""
    found: dict[tuple[Any, ...], Problem] = {}
    for head_dim, dtype, is_causal in itertools.product(head_dims, dtypes, (True, False)):
        problem = Problem(head_dim, dtype, is_causal)
        found.setdefault(_key(_row_of(problem)), problem)
    yield from found.values()
