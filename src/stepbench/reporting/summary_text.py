"""The summary in words: the values of `stepbench.reporting.summary` as tables and sentences."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2

from stepbench.measure.devices import KINDS
from stepbench.pipeline import capability
from stepbench.pipeline.bench import Bench
from stepbench.reporting import columns as col
from stepbench.reporting import costs, findings, rendering, summary, tables, units
from stepbench.reporting.findings import between, listing, plural
from stepbench.reporting.frames import Results
from stepbench.reporting.prices import Price
from stepbench.reporting.sections import Target
from stepbench.reporting.steps import token_energy_joules
from stepbench.reporting.summary import Highlight, Rival, Speed, Sureness
from stepbench.reporting.tables import Table

TITLE = "Summary"
SHOWN_STRANGERS = 2  # machines with which nothing can be compared, where there is no other
NO_SPEED = "No whole training step has been measured here."
# What a machine without a GPU leaves open, and what would close it.
WITHOUT_GPU = (
    "This machine has no GPU that torch can use, so nothing here tells how fast a GPU is, which kernels pay there, or "
    "what communication between GPUs costs. Memory is predicted from the operators of a CPU; on a GPU fused attention "
    "has other ones."
)
COMMANDS = ("make gpu-check", "make report", "stepbench pack")
THEN = "on a machine with a GPU; then `stepbench merge` takes its file in here, and the report compares the two."


def section(
    environment: jinja2.Environment,
    bench: Bench,
    experiments: Sequence[Any],
    results: Mapping[str, Results],
    target: Target,
    rivals: Sequence[Rival] = (),
) -> str:
    """Return the section at the top of the report.

    Args:
        environment: with the template.
        bench: the configuration.
        experiments: what is reported on; rendered.
        results: of each of them by its name.
        target: where the text goes.
        rivals: other machines against this one.
    """
    contributed = [each.summarize(results[each.name]) for each in experiments if each.summarize is not None]
    best = summary.fastest(speed for each in contributed for speed in each.speeds)
    shown = [
        tables.read(bench.root / rendering.folder_of(bench.machine, "tables", each.name) / f"{name}.json")
        for each in experiments
        for name in each.table_names
    ]
    files = {each.title: rendering.findings_file(bench.machine, each.name) for each in experiments}
    told = {title: findings.read(bench.root / file) for title, file in files.items()}
    matter = summary.highlights(told, {each.title: results[each.name] for each in experiments})
    section = bench.settings.get("prices", {}).get(bench.machine)
    paid = costs.table(best, None if section is None else Price.of(section), bench.machine, bench.settings)
    fits = [dataclasses.replace(table, title="What fits") for each in contributed for table in each.fits]
    return environment.get_template("summary.md.j2").render(
        title=TITLE,
        no_gpu=None if KINDS[bench.device].is_gpu else {"text": WITHOUT_GPU, "commands": COMMANDS, "then": THEN},
        sure=sure(summary.sureness(results.values(), shown)),
        speeds=target.table(
            tables.show(speeds(best, capability.WITHOUT_BF16 if bench.is_without_bf16 else "")), name="summary-speeds"
        ),
        fits=[target.table(tables.show(each), name=f"summary-fits-{index}") for index, each in enumerate(fits)],
        costs=target.table(tables.show(paid), name="summary-costs"),
        rivals=[each for each in rivals if each.is_comparable] or list(rivals)[:SHOWN_STRANGERS],
        highlights=[(each.text, *link(each)) for each in matter],
    )


def speeds(found: Sequence[Speed], note: str = "") -> Table:
    """Return one row for each size and context: the fastest way that was measured; `note` ends the caption."""
    rows = [_row(each) for each in found]
    columns = [
        col.size(),
        col.value("context"),
        col.value("batch", secondary=True),
        col.word("way", "fastest way measured"),
        col.Column("tokens/s", lambda row: units.middle(*(row[key] for key in _RATE))),
        col.value("mfu_ratio", "MFU of measured peak", units.percent, secondary=True),
        col.value("token_energy_joules", "energy of a token", units.joules, droppable=True, secondary=True),
        col.ratio("over_plain", "speed over the plain step"),
        col.word("verdict"),
        col.WARNINGS,
    ]
    caption = (
        "Whole training steps; of each size and context the way with the most tokens/s. The plain step is fp32, eager, "
        "with naive attention; at the foot of a ladder its AdamW is a loop."
    )
    return Table("How fast", f"{caption} {note}".rstrip(), rows, columns, NO_SPEED)


def sure(found: Sureness) -> str:
    """Return one line about what the numbers rest on."""
    if not found.processes:
        return "Nothing has been measured yet."
    parts = [f"{plural(found.processes, 'cell')}, each in a process of its own, on {between(found.days)}"]
    parts += [f"{name} {listing(versions)}" for name, versions in found.software.items()]
    parts.append(f"{found.warned} of them carry a warning in a table" if found.warned else "none carries a warning")
    if found.failed:
        parts.append(f"{plural(found.failed, 'cell')} failed")
    if found.missing:
        parts.append(f"{plural(found.missing, 'cell')} not measured or stale")
    return "; ".join(parts) + "."


def link(highlight: Highlight) -> tuple[str, str]:
    """Return the title of a highlight's section, and its id on the page and on GitHub."""
    return highlight.section, re.sub(r"[^a-z0-9]+", "-", highlight.section.lower()).strip("-")


_RATE = ("tokens_per_s", "tokens_low_per_s", "tokens_high_per_s")


def _row(speed: Speed) -> dict[str, Any]:
    low, high = speed.interval_per_s
    found = speed.over_plain
    return {
        **col.facts(speed.group, speed.step.marks),
        "parameters": speed.group.scalar("parameters"),
        "way": speed.way,
        **dict(zip(_RATE, (speed.tokens_per_s, low, high), strict=True)),
        "mfu_ratio": speed.mfu_ratio,
        "token_energy_joules": token_energy_joules(speed.group),
        **col.ratio_of("over_plain", found),
        "verdict": "the plain step" if speed.is_plain else found.verdict.value if found else None,
    }
