"""The table of warm-up: each phase by number of warm-up steps."""

from __future__ import annotations

from stepbench.experiments.warmup.cell import BATCH, CONTEXT
from stepbench.reporting import columns as col
from stepbench.reporting import units
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
        row = col.measured(group, {**summaries, "sum": summarize(sums) if sums else None}, "sum")
        rows.append(row | {"first_s": summarize([[samples[0]] for samples in sums]).median if sums else None})
    names = (*PHASES, "sum")
    unit = col.time_unit(rows, names)
    columns = [
        col.word("size"),
        col.value("warmup", "warm-up steps"),
        *(_mean_column(phase, unit) for phase in names),
        col.value("first_s", "first measured step", units.seconds),
        col.value("sum_cv_ratio", "CV of the sum", units.percent),
        col.interval("sum", unit, "median of the sum"),
        col.WARNINGS,
        col.STATUS,
    ]
    caption = (
        f"Each row is a process of its own. Context {CONTEXT}, batch {BATCH}, float32, AdamW. Mean ± standard "
        "deviation of the measured steps, timed by phases."
    )
    return Table("Phases by number of warm-up steps", caption, rows, columns)


def _mean_column(name: str, unit: Unit) -> col.Column:
    def text(row: Row) -> str:
        return units.plus_minus(row[f"{name}_mean_s"], row[f"{name}_std_s"], per=unit.size)

    return col.Column("sum of phases" if name == "sum" else name, text, unit.name)
