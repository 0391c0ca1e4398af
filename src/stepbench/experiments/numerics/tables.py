"""The tables of low precision: four sums with their errors, and the dtypes under autocast."""

from __future__ import annotations

from typing import Any

from stepbench.experiments.numerics.cases import CASES, NAMES, TENSORS, WAYS, devices_of, rounding
from stepbench.experiments.numerics.cell import TERM, TERMS
from stepbench.reporting import units
from stepbench.reporting.columns import RECORDS, STATUS, axis_text, facts, value, word
from stepbench.reporting.frames import Results
from stepbench.reporting.tables import Table


def accumulation(results: Results) -> Table:
    """Return the four sums with their errors."""
    group = results.group(case="accumulation")
    rows = []
    for way, words in WAYS.items() if group else ():
        assert group  # noqa: S101 - the loop has looked
        total, exact = group.scalar(f"sum_{way}"), group.scalar("sum_fp64")
        error = None if total is None or exact is None else total - exact
        relative = None if error is None else error / exact
        values = {"way": words, "sum": total, "exact": exact, "error": error, "relative_error_ratio": relative}
        rows.append(values | rounding(way, error) | facts(group))
    columns = [
        word("way", "terms and sum"),
        value("sum", text=units.exactly),
        value("error", text=units.scientific),
        value("relative_error_ratio", "relative error", units.scientific),
        value("term", "the term", units.exactly),
        value("rounding_ratio", "error that its rounding explains", units.percent),
        STATUS,
    ]
    caption = "The error is relative to the same sum in float64."
    return Table(f"The sum of {TERMS} times {TERM} in four ways", caption, rows, columns)


def autocast(results: Results) -> Table:
    """Return the dtype of each tensor under autocast, a column for each precision and device."""
    cases = {case: group for case in CASES if (group := results.group(case=case)) is not None}
    devices = devices_of(group for group in cases.values())
    rows: list[dict[str, Any]] = []
    for tensor in TENSORS if cases else ():
        dtypes = {
            f"{case}_{device}": (group.scalar(f"{device}_{tensor}_dtype") if group.records else group.status)
            for case, group in cases.items()
            for device in devices
        }
        records = {CASES[case]: group.paths for case, group in cases.items()}
        rows.append({"tensor": tensor, **dtypes, RECORDS: records})
    columns = [
        value("tensor", text=axis_text, numeric=False),
        *(word(f"{case}_{device}", f"{CASES[case]} on {NAMES[device]}") for case in cases for device in devices),
    ]
    caption = (
        "One step of two linear layers with a LayerNorm and an RMSNorm between them; the parameters are float32. "
        "A device that is not there was asked on fake tensors, of the forward pass alone: a dash stands for what needs "
        "the device."
    )
    return Table("The dtype of each tensor under autocast", caption, rows, columns)
