"""How fast can this machine be at all?"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch

from stepbench.experiments.ceilings.cell import Cell
from stepbench.measure import clock, timing
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError, WrongResultError
from stepbench.measure.paging import Paging
from stepbench.models.precision import AUTOCAST, precision_reason, set_precision

MATRIX_DIMS = {"cpu": (256, 512, 1024, 2048), "mps": (512, 1024, 2048, 4096)}
COPY_MIB = {"cpu": (1, 16, 128), "mps": (16, 128, 512)}
GPU_MATRIX_DIMS, GPU_COPY_MIB = (1024, 2048, 4096, 8192, 16384), (64, 256, 1024)  # of every other device
MIN_REGION_S = 2e-3
CHECKED_ROWS = 16  # of a product, against float64
TF32_EPS = 2**-10
MAX_CALL_S = 0.5  # no larger size that takes longer: minutes on a CPU without bf16 units, half of one on a T4


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Time the operation at each size; the fastest is the peak.

    A product of two [n, n] matrices is 2 n³ FLOPs. A copy of n bytes moves 2 n: each is read and written. What was
    timed is then looked at: rows of the product against float64, and the copy against its source.

    Raises:
        UnsupportedError: the device does not compute in this dtype.
        WrongResultError: the result is not that of the operation, so its time is worth nothing.
    """
    if (reason := precision_reason(cell.dtype, setting.device)) is not None:
        raise UnsupportedError(reason)
    torch.manual_seed(setting.protocol["seed"])
    set_precision(cell.dtype)
    dtype = AUTOCAST.get(cell.dtype, torch.float32)
    timer = clock.for_device(setting.device)
    samples: dict[str, list[float]] = {}
    scalars: dict[str, int] = {}
    loops: dict[str, int] = {}
    work: Callable[[], object]
    check: Callable[[], None]
    for extent in extents(cell.operation, setting.device):
        if cell.operation == "matmul":
            a, b = (torch.randn(extent, extent, device=setting.device, dtype=dtype) for _ in range(2))
            out = torch.empty_like(a)
            name, work = f"matmul_{extent}", functools.partial(torch.matmul, a, b, out=out)
            check = functools.partial(_check_product, a, b, out, cell.dtype)
            scalars[f"{name}_flops"] = 2 * extent**3
        else:
            source = torch.randn(extent * 2**20 // dtype.itemsize, device=setting.device).to(dtype)
            out = torch.empty_like(source)
            name, work = f"copy_{extent}_mib", functools.partial(out.copy_, source)
            check = functools.partial(_check_copy, source, out)
            scalars[f"{name}_moved_bytes"] = 2 * source.nbytes
        first = timing.time_whole(work, clock=timer, repeats=max(1, setting.protocol["warmup_steps"]))
        loops[name] = timing.loops_for(work, clock=timer, min_region_s=MIN_REGION_S)
        repeats = setting.protocol["measured_steps"]
        paged = Paging(calls=loops[name])
        timed = timing.time_loops(work, clock=timer, repeats=repeats, loops=loops[name], paged=paged)
        samples |= {f"{name}_s": timed, **paged.samples(name)}
        check()
        if cell.operation == "matmul" and min(first) * 2**3 > MAX_CALL_S:
            break  # twice the size is eight times the work
    return Measurement(
        samples=samples,
        scalars=scalars,
        protocol={"clock": timer.name, "loops": loops, "effective_threads": torch.get_num_threads()},
    )


def extents(operation: str, device: str) -> tuple[int, ...]:
    """Return the sizes that are tried on a device: dims of matrices, or MiB of a copy."""
    sizes, others = (MATRIX_DIMS, GPU_MATRIX_DIMS) if operation == "matmul" else (COPY_MIB, GPU_COPY_MIB)
    return sizes.get(device, others)


def _check_product(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, dtype: str) -> None:
    """Hold rows of `out`, which should be `a @ b`, against float64.

    Rounding errors of n terms add up like a random walk, so that sqrt(n) of them are allowed in the float32 of the sum,
    and a few in the dtype of the operands.
    """
    exact_on = "cpu" if a.device.type == "mps" else a.device  # MPS has no float64
    rows = slice(None, None, max(1, a.shape[0] // CHECKED_ROWS))
    exact = a[rows].to(exact_on, torch.float64) @ b.to(exact_on, torch.float64)
    eps = TF32_EPS if dtype == "tf32" else torch.finfo(out.dtype).eps
    allowed = 4 * (eps + torch.finfo(torch.float32).eps * a.shape[0] ** 0.5) * float(exact.abs().max())
    error = float((out[rows].to(exact) - exact).abs().max())
    if not error <= allowed:
        raise WrongResultError(
            f"a product of n = {a.shape[0]} must be within {allowed:.3g} of float64, got {error:.3g}"
        )


def _check_copy(source: torch.Tensor, out: torch.Tensor) -> None:
    if not torch.equal(source, out):
        raise WrongResultError(f"a copy of {source.nbytes} bytes must equal its source, and it does not")
