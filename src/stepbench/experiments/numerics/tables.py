"""The four sums with their errors, and the dtypes under autocast."""

from __future__ import annotations

from typing import Any

from stepbench.experiments.numerics.cases import CASES, TENSORS, WAYS, find_case
from stepbench.experiments.numerics.cell import TERM, TERMS
from stepbench.reporting import tables, units
from stepbench.reporting.frames import Results
from stepbench.reporting.tables import Column, Table


def accumulation(results: Results) -> Table:
    """Return the four sums with their errors."""
    group = find_case(results, "accumulation")
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
    return Table(
        "accumulation",
        f"The sum of {TERMS} times {TERM}, in four ways",
        "The error is against the same sum in float64.",
        tables.frame(rows),
        columns,
        "The grid has no accumulation.",
    )


def autocast(results: Results) -> Table:
    """Return the dtype of each tensor under autocast."""
    cases = {case: group for case in CASES if (group := find_case(results, case)) is not None}
    rows: list[dict[str, Any]] = []
    for tensor in TENSORS if cases else ():
        dtypes = {case: group.scalar(f"{tensor}_dtype") or group.status for case, group in cases.items()}
        records = {case.removeprefix("autocast_"): group.paths for case, group in cases.items()}
        rows.append({"tensor": tensor, **dtypes, tables.RECORDS: records})
    columns = [
        Column("tensor", lambda row: tables.axis_text(row["tensor"]), numeric=False),
        *(tables.value(case, tables.axis_text(case), tables.axis_text, numeric=False) for case in cases),
    ]
    return Table(
        "autocast",
        "The dtype of each tensor under autocast",
        "One step of two linear layers with a LayerNorm and an RMSNorm between them; the parameters are float32.",
        tables.frame(rows),
        columns,
        "The grid has no autocast case.",
    )
