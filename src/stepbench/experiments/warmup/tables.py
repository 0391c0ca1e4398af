"""The table of warm-up: each phase after so many steps."""

from __future__ import annotations

from typing import Any

from stepbench.experiments.warmup.cell import BATCH, CONTEXT
from stepbench.reporting import units
from stepbench.reporting.columns import (
    STATUS,
    WARNINGS,
    Column,
    facts,
    interval,
    statistics_of,
    time_unit,
    value,
    word,
)
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Row
from stepbench.reporting.statistics import summarize
from stepbench.reporting.steps import PHASES, phase_sums
from stepbench.reporting.tables import Table
from stepbench.reporting.units import Unit


def warmup(results: Results) -> Table:
    """Return mean ± standard deviation of each phase and of their sum, one row for each number of warm-up steps."""
    rows = []
    for group in results.groups():
        summaries = {phase: group.summary(f"{phase}_s") for phase in PHASES}
        sums = phase_sums(group)
        summaries["sum"] = summarize(sums) if sums else None
        values: dict[str, Any] = {}
        for phase, summary in summaries.items():
            values |= statistics_of(phase, summary)
        rows.append(facts(group, summaries["sum"].marks if summaries["sum"] else ()) | values)
    names = (*PHASES, "sum")
    unit = time_unit(rows, names)
    columns = [
        word("size"),
        value("warmup", "warm-up steps"),
        *(_mean_column(phase, unit) for phase in names),
        value("sum_cv_ratio", "CV of the sum", units.percent),
        interval("sum", unit, "median of the sum"),
        WARNINGS,
        STATUS,
    ]
    caption = (
        f"Each row is a process of its own. Context {CONTEXT}, batch {BATCH}, float32, AdamW. Mean ± standard "
        "deviation of the measured steps, timed by phases."
    )
    return Table("Phases by number of warm-up steps", caption, rows, columns)


def _mean_column(name: str, unit: Unit) -> Column:
    def text(row: Row) -> str:
        return units.plus_minus(row[f"{name}_mean_s"], row[f"{name}_std_s"], per=unit.size)

    return Column("sum of phases" if name == "sum" else name, text, unit.name)
