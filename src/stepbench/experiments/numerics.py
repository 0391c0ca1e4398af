"""What does low precision do to sums and to dtypes?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from stepbench.experiments.experiment import Experiment
from stepbench.measure.measurement import Measurement, Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stepbench.reporting.frames import Group, Results
    from stepbench.reporting.tables import Table

TERM = 0.01
TERMS = 1000
SHOWN_TERMS = tuple(range(10, TERMS + 1, 10))


@dataclass(frozen=True)
class Numerics:
    """A sum of a thousand terms, or the dtypes that autocast chooses."""

    case: Literal["accumulation", "autocast_fp16", "autocast_bf16"]


def measure(cell: Numerics, setting: Setting) -> Measurement:
    """Add 0.01 a thousand times in four ways, or look at the dtypes in a training step under autocast."""
    if cell.case == "accumulation":
        return _accumulate(setting.device)
    return _autocast(setting, cell.case.removeprefix("autocast_"))


def _accumulate(device: str) -> Measurement:
    """Return the running sums after each of `SHOWN_TERMS` terms beside the float64 sum of the decimal 0.01."""
    import torch

    ways = {
        "fp32": (torch.float32, torch.float32),
        "fp16": (torch.float16, torch.float16),
        "fp32_sum_of_fp16_terms": (torch.float32, torch.float16),
        "fp32_sum_of_upcast_fp16_terms": (torch.float32, torch.float16),
    }
    curves: dict[str, list[float]] = {}
    for way, (sum_dtype, term_dtype) in ways.items():
        total = torch.tensor(0.0, dtype=sum_dtype, device=device)
        term = torch.tensor(TERM, dtype=term_dtype, device=device)
        curve = []
        for count in range(1, TERMS + 1):
            total += term.to(torch.float32) if "upcast" in way else term
            if count in SHOWN_TERMS:
                curve.append(float(total))
        curves[way] = curve
    exact = torch.full((TERMS,), TERM, dtype=torch.float64).cumsum(0)
    return Measurement(
        scalars={f"sum_{way}": curve[-1] for way, curve in curves.items()} | {"sum_fp64": float(exact[-1])},
        details={
            "terms": list(SHOWN_TERMS),
            "sums": curves,
            "sums_fp64": [float(exact[count - 1]) for count in SHOWN_TERMS],
        },
    )


def _autocast(setting: Setting, precision: str) -> Measurement:
    """Run one step of a network of two linear layers with a LayerNorm between, and record each tensor's dtype.

    LayerNorm and RMSNorm are both looked at, since autocast's lists treat norms apart and the decoder uses the latter.
    """
    import torch
    from torch import nn

    from stepbench.models.training import AUTOCAST

    torch.manual_seed(setting.protocol["seed"])
    seen: dict[str, Any] = {}
    first, norm, last = nn.Linear(16, 32, bias=False), nn.LayerNorm(32), nn.Linear(32, 8, bias=False)
    rms_norm = nn.RMSNorm(32)
    network = nn.ModuleList([first, norm, rms_norm, last]).to(setting.device)
    x = torch.randn(4, 16, device=setting.device)
    target = torch.randint(0, 8, (4,), device=setting.device)
    with torch.autocast(setting.device, dtype=AUTOCAST[precision]):
        hidden = first(x)
        normed, rms_normed = norm(torch.relu(hidden)), rms_norm(torch.relu(hidden))
        logits = last(normed + rms_normed)
        loss = nn.functional.cross_entropy(logits, target)
    loss.backward()
    seen["parameters"] = next(network.parameters()).dtype
    seen["first_layer"] = hidden.dtype
    seen["layer_norm"] = normed.dtype
    seen["rms_norm"] = rms_normed.dtype
    seen["logits"] = logits.dtype
    seen["loss"] = loss.dtype
    seen["gradients"] = first.weight.grad.dtype  # type: ignore[union-attr]
    return Measurement(scalars={f"{name}_dtype": str(dtype).removeprefix("torch.") for name, dtype in seen.items()})


# -- what is told of it; nothing above uses what is below, so that no number goes stale with a table's layout ----------

WAYS = {
    "fp32": "fp32 terms, fp32 sum",
    "fp16": "fp16 terms, fp16 sum",
    "fp32_sum_of_fp16_terms": "fp16 terms, fp32 sum",
    "fp32_sum_of_upcast_fp16_terms": "fp16 terms, upcast first, fp32 sum",
}
TENSORS = ("parameters", "first_layer", "layer_norm", "rms_norm", "logits", "loss", "gradients")
CASES = ("autocast_fp16", "autocast_bf16")


def tabulate(results: Results) -> list[Table]:
    """Return the four sums with their errors, and the dtypes under autocast."""
    return [_accumulation_table(results), _autocast_table(results)]


def plot(results: Results) -> dict[str, Figure]:
    """Return the sums' relative errors over the number of terms."""
    from stepbench.reporting import figures, rounding

    group = _case(results, "accumulation")
    if group is None or not group.records:
        return {"accumulation": figures.nothing("The accumulation has not been measured.")}
    details = group.records[0].details
    described = f"Sums of the term {TERM}; the exact sum is taken in float64."
    return {"accumulation": rounding.errors(details, WAYS, described)}


def find(results: Results) -> list[str]:
    """Return which sum is off by how much and why, and which tensors autocast leaves in float32."""
    from stepbench.reporting import rounding

    found = []
    group = _case(results, "accumulation")
    if group is not None and group.records:
        found += rounding.sums(group.records[0].scalars, WAYS, TERM, TERMS)
    for case in CASES:
        group = _case(results, case)
        if group is not None and group.records:
            found += rounding.dtypes(group.records[0].scalars, TENSORS, case.removeprefix("autocast_"))
    return found


def _case(results: Results, case: str) -> Group | None:
    return next((group for group in results.groups() if group.point["case"] == case), None)


def _accumulation_table(results: Results) -> Table:
    from stepbench.reporting import tables, units
    from stepbench.reporting.tables import Column

    group = _case(results, "accumulation")
    rows = []
    for way, words in WAYS.items():
        if group is None:
            break
        total, exact = group.scalar(f"sum_{way}"), group.scalar("sum_fp64")
        error = None if total is None or exact is None else total - exact
        relative = None if error is None else error / exact
        values = {"way": words, "sum": total, "exact": exact, "error": error, "relative_error_ratio": relative}
        rows.append(values | tables.facts(group))
    columns = [
        Column("terms and sum", lambda row: row["way"], numeric=False),
        Column("sum", lambda row: units.exactly(row["sum"])),
        Column("error", lambda row: units.scientific(row["error"])),
        Column("relative error", lambda row: units.scientific(row["relative_error_ratio"])),
        tables.STATUS,
    ]
    return tables.Table(
        "accumulation",
        f"The sum of {TERMS} times {TERM}, in four ways",
        "The error is against the same sum in float64.",
        tables.frame(rows),
        columns,
        "The grid has no accumulation.",
    )


def _autocast_table(results: Results) -> Table:
    from stepbench.reporting import tables
    from stepbench.reporting.tables import Column

    cases = {case: group for case in CASES if (group := _case(results, case)) is not None}
    rows: list[dict[str, Any]] = []
    for tensor in TENSORS if cases else ():
        dtypes = {case: group.scalar(f"{tensor}_dtype") or group.status for case, group in cases.items()}
        records = {case.removeprefix("autocast_"): group.paths for case, group in cases.items()}
        rows.append({"tensor": tensor, **dtypes, tables.RECORDS: records})
    columns = [
        Column("tensor", lambda row: tables.axis_text(row["tensor"]), numeric=False),
        *(tables.value(case, tables.axis_text(case), tables.axis_text, numeric=False) for case in cases),
    ]
    return tables.Table(
        "autocast",
        "The dtype of each tensor under autocast",
        "One step of two linear layers with a LayerNorm and an RMSNorm between them; the parameters are float32.",
        tables.frame(rows),
        columns,
        "The grid has no autocast case.",
    )


EXPERIMENT = Experiment(
    name="numerics",
    title="Numerics",
    question="What does low precision do to sums and to dtypes?",
    cell=Numerics,
    measure=measure,
    settings=("protocol",),
    table_names=("accumulation", "autocast"),
    tabulate=tabulate,
    figure_names=("accumulation",),
    plot=plot,
    find=find,
)
