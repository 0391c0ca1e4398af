"""How fast can this machine be at all?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from stepbench.experiments.experiment import Experiment
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stepbench.reporting.frames import Results
    from stepbench.reporting.tables import Table

MATRIX_DIMS = {"cpu": (256, 512, 1024, 2048), "mps": (512, 1024, 2048, 4096), "cuda": (1024, 2048, 4096, 8192, 16384)}
COPY_MIB = {"cpu": (1, 16, 128), "mps": (16, 128, 512), "cuda": (64, 256, 1024)}
MIN_REGION_S = 2e-3
MAX_CALL_S = 0.5  # no larger size on a CPU that would take longer: one without bf16 units would need minutes


@dataclass(frozen=True)
class Ceilings:
    """A square matrix product, or a copy from device memory to device memory, over a few sizes."""

    operation: Literal["matmul", "copy"]
    dtype: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    replicate: int = 0


def measure(cell: Ceilings, setting: Setting) -> Measurement:
    """Time the operation at each size; the fastest is the peak.

    A product of two [n, n] matrices is 2 n³ FLOPs. A copy of n bytes moves 2 n: each is read and written.
    """
    import torch

    from stepbench.measure import clock, timing
    from stepbench.models.training import AUTOCAST, precision_reason, set_precision

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
    for extent in (MATRIX_DIMS if cell.operation == "matmul" else COPY_MIB)[setting.device]:
        if cell.operation == "matmul":
            a, b = (torch.randn(extent, extent, device=setting.device, dtype=dtype) for _ in range(2))
            name, work = f"matmul_{extent}", functools.partial(torch.matmul, a, b, out=torch.empty_like(a))
            scalars[f"{name}_flops"] = 2 * extent**3
        else:
            source = torch.randn(extent * 2**20 // dtype.itemsize, device=setting.device).to(dtype)
            name, work = f"copy_{extent}_mib", functools.partial(torch.empty_like(source).copy_, source)
            scalars[f"{name}_moved_bytes"] = 2 * source.nbytes
        first = timing.time_whole(work, clock=timer, repeats=max(1, setting.protocol["warmup_steps"]))
        loops[name] = timing.loops_for(work, clock=timer, min_region_s=MIN_REGION_S)
        repeats = setting.protocol["measured_steps"]
        samples[f"{name}_s"] = timing.time_loops(work, clock=timer, repeats=repeats, loops=loops[name])
        if cell.operation == "matmul" and min(first) * 2**3 > MAX_CALL_S and setting.device == "cpu":
            break  # twice the size is eight times the work
    return Measurement(
        samples=samples,
        scalars=scalars,
        protocol={"clock": timer.name, "loops": loops, "effective_threads": torch.get_num_threads()},
    )


# -- what is told of it; nothing above uses what is below, so that no number goes stale with a table's layout ----------


def tabulate(results: Results) -> list[Table]:
    """Return the peak of each operation and dtype, and the rate at each size."""
    from stepbench.reporting import rate_tables

    return [rate_tables.peaks(results), rate_tables.rates(results)]


def plot(results: Results) -> dict[str, Figure]:
    """Return the roofline, with the products that were measured in it."""
    from stepbench.reporting import peaks, roofline

    groups = results.groups()
    rates = peaks.rates([record for group in groups for record in group.records])
    described = "Solid: measured; dashed: the vendor's figure where it is known."
    return {"roofline": roofline.draw(results.peaks, roofline.products(rates), described)}


def find(results: Results) -> list[str]:
    """Return the peaks, what they are of the vendor's, and whether larger sizes might go higher."""
    from stepbench.reporting import peaks, rate_tables

    groups = results.groups()
    return rate_tables.findings(peaks.rates([record for group in groups for record in group.records]), results.peaks)


EXPERIMENT = Experiment(
    name="ceilings",
    title="The machine's ceilings",
    question="How fast can this machine be at all?",
    cell=Ceilings,
    measure=measure,
    settings=("protocol",),
    table_names=("peaks", "rates"),
    tabulate=tabulate,
    figure_names=("roofline",),
    plot=plot,
    find=find,
)
