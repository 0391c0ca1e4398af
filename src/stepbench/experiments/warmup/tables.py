"""The table of warming up: each phase after so many steps."""

from __future__ import annotations

from typing import Any

from stepbench.experiments.warmup.cell import BATCH, CONTEXT
from stepbench.reporting import markup, units
from stepbench.reporting.frames import Results
from stepbench.reporting.statistics import summarize
from stepbench.reporting.steps import PHASES, one_line, phase_sums, statistics_of, time_unit
from stepbench.reporting.tables import MARKS, STATUS, Column, Row, Table, facts, frame, value
from stepbench.reporting.units import Unit


def warmup(results: Results) -> Table:
    """Return mean ± standard deviation of each phase and of their sum, one row for each count of warm-up steps."""
    rows = []
    for group in results.groups():
        summaries = {phase: group.summary(f"{phase}_s") for phase in PHASES}
        sums = phase_sums(group)
        summaries["sum"] = summarize(sums) if sums else None
        found = summaries["sum"].marks if summaries["sum"] else ()
        values: dict[str, Any] = {}
        for phase, summary in summaries.items():
            values |= statistics_of(phase, summary)
        rows.append(facts(group, found) | values)
    names = (*PHASES, "sum")
    unit = time_unit(rows, names)
    columns = [
        value("size", text=markup.escape, numeric=False),
        value("warmup", "warm-up steps"),
        *(_mean_column(phase, unit) for phase in names),
        Column("CV of the sum", lambda row: units.percent(row["sum_cv_ratio"])),
        one_line("sum", unit, "median of the sum"),
        MARKS,
        STATUS,
    ]
    told = (
        f"Each row is a process of its own. Context {CONTEXT}, batch {BATCH}, float32, AdamW. "
        "Mean ± standard deviation of the steps that count, timed by phases."
    )
    title = "Phases after so many steps of warm-up"
    return Table("warmup", title, told, frame(rows), columns, "The grid has no warm-up cell.")


def _mean_column(name: str, unit: Unit) -> Column:
    def text(row: Row) -> str:
        return units.plus_minus(row[f"{name}_mean_s"], row[f"{name}_std_s"], per=unit.size)

    return Column(f"{'phases together' if name == 'sum' else name} ({unit.name})", text)
