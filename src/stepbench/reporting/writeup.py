"""The writeup: report/writeup.md and report/writeup.html, made from templates and the JSON of what was rendered."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jinja2
from markupsafe import Markup

from stepbench.pipeline.bench import Bench
from stepbench.pipeline.records import Record
from stepbench.pipeline.state import States
from stepbench.process.storage import write_atomically
from stepbench.reporting import (
    findings,
    frames,
    marks,
    page,
    points,
    protocol,
    sections,
    summary_text,
    templates,
    units,
)
from stepbench.reporting.frames import Results
from stepbench.reporting.sections import Target
from stepbench.reporting.summary import Rival

Section = Callable[[Target], str]  # writes a section as Markdown for the report that goes there

LABELS = ("ok", "oom", "timeout", "unsupported", "error", "stale", "unreadable", "not measured")

# A record's environment -> a name in the table of the machine.
_FACTS = {
    "device_name": "device",
    "device_count": "devices",
    "device_memory_bytes": "device memory",
    "cpu": "CPU",
    "cpu_cores": "CPU cores available",
    "host_memory_bytes": "host memory",
    "os": "operating system",
    "torch": "torch",
    "triton": "triton",
    "cuda": "CUDA",
    "driver": "driver",
    "python": "Python",
    "git_commit": "commit",
    "git_dirty": "uncommitted changes",
}


def write_up(
    states: States,
    experiments: Sequence[Any],
    out_md: Path,
    out_html: Path,
    run_facts: Mapping[str, Any] | None = None,
    others: Mapping[str, Section] = MappingProxyType({}),
    rivals: Sequence[Rival] = (),
    note: str = "",
) -> None:
    """Write the report about this machine.

    Args:
        states: those of the configuration; its schema's folder holds report/templates and report/captions.
        experiments: what to report on; their tables, figures and findings have been rendered.
        out_md: where the Markdown goes; links in it are relative to its folder.
        out_html: where the page goes, which needs no other file.
        run_facts: `cells`, `wall_s`, `inside_s` and `overhead_per_cell_s` of the last run that measured anything.
        others: the name of a section that is not of an experiment (`sections.OTHERS`) -> what writes it.
        rivals: other machines in brief, for the summary.
        note: what is said before anything else, of a report that is not the whole one.

    Raises:
        FileNotFoundError: a table, a figure or the findings were not rendered, or a figure has no caption.
        jinja2.UndefinedError: a template uses a value that is missing.
    """
    bench = states.bench
    results = {experiment.name: frames.load(states, experiment) for experiment in experiments}
    by_name = {experiment.name: experiment for experiment in experiments}
    folder = bench.schema.parent / "report"
    environment = templates.environment(folder / "templates")
    context = {**_context(bench, experiments, results, run_facts), "note": note}
    ordered = sections.order(folder / sections.ORDER, by_name)
    for path, for_page in ((out_md, False), (out_html, True)):
        target = sections.Target(bench, path.parent, for_page=for_page)
        made = [summary_text.section(environment, bench, experiments, results, target, rivals)]
        for _, name in ordered:
            if name in sections.OTHERS:
                made.append(others[name](target) if name in others else "")
            else:
                held = captions(folder / "captions" / f"{name}.rst") if by_name[name].figure_names else {}
                made.append(sections.section(environment, bench, by_name[name], results[name], held, target))
        text = environment.get_template("writeup.md.j2").render(**context, sections=made, for_page=for_page)
        text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
        if for_page:
            titles = {by_name[name].title: part for part, name in reversed(ordered) if name in by_name}
            text = _page(environment, folder / "templates", context, text, target, path, titles)
        write_atomically(path, text)


def _page(
    environment: jinja2.Environment,
    folder: Path,
    context: Mapping[str, Any],
    text: str,
    target: Target,
    path: Path,
    parts: Mapping[str, str],
) -> str:
    """Return the page; `parts` are the parts of the report by the titles of the sections in them."""
    body, contents = page.render(text, path.parent, target.blocks)
    part = ""
    for entry in contents:
        if parts.get(entry.text, part) != part:
            part = entry.part = parts[entry.text]
    return environment.get_template("writeup.html.j2").render(
        title=context["title"],
        lead=context["lead"],
        note=context["note"],
        contents=contents,
        # Safe: markdown-it escapes all HTML of the Markdown that it is made from; blocks escape what they show.
        body=Markup(body),  # noqa: S704
        packed=target.embedded.packed(),
        paths=target.embedded.paths,
        **templates.script(folder, "page.js"),
    )


def captions(path: Path) -> dict[str, str]:
    """Return the captions in a file of ours: an RST definition list of figure names and plain text.

    Raises:
        FileNotFoundError: the file is missing.
    """
    found: dict[str, list[str]] = {}
    name = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line[0].isspace():
            name = line.strip()
        elif line.strip():
            found.setdefault(name, []).append(line.strip())
    return {name: " ".join(lines) for name, lines in found.items()}


def _context(
    bench: Bench, experiments: Sequence[Any], results: Mapping[str, Results], run: Mapping[str, Any] | None
) -> dict[str, Any]:
    used = [row["record"] for each in results.values() for row in each.rows if points.label(row) == "ok"]
    counts = {
        experiment.name: [[points.label(row) for row in results[experiment.name].rows].count(label) for label in LABELS]
        for experiment in experiments
    }
    shown = [index for index, label in enumerate(LABELS) if label == "ok" or any(row[index] for row in counts.values())]
    all_cells, with_numbers = sum(map(sum, counts.values())), sum(row[0] for row in counts.values())
    device = next((str(record.environment["device_name"]) for record in used), bench.machine)
    return {
        "title": f"What a Transformer training step costs on {device}",
        "lead": _lead(bench, used),
        "machine": _machine(bench, used),
        "protocol": protocol.sentences(bench, used),
        "qualities": marks.QUALITIES,
        "warnings": list(marks.MEANING.items()),
        "ran": f"{with_numbers} of {findings.plural(all_cells, 'cell')} gave numbers."
        if all_cells
        else f"The configuration has no cell on the scale {bench.scale}; there is nothing to report.",
        "labels": [LABELS[index] for index in shown],
        "totals": [
            (experiment.title, [counts[experiment.name][index] for index in shown], sum(counts[experiment.name]))
            for experiment in experiments
        ],
        "results": f"results/{bench.machine}",
        "run": None if run is None else _run(run),
    }


def _lead(bench: Bench, used: Sequence[Record]) -> str:
    if not used:
        return f"Machine {bench.machine}. Nothing has been measured on it yet."
    days = sorted({record.started[:10] for record in used})
    return (
        f"Measured by stepbench on {findings.between(days)} on the machine {bench.machine}, with the {bench.scale} "
        "grids of config.yaml. Every number below comes from a record; none was typed."
    )


def _machine(bench: Bench, used: Sequence[Record]) -> list[tuple[str, str]]:
    """Return the machine's facts; where records disagree, all values."""
    found = [("name", bench.machine)]
    for key, name in _FACTS.items():
        values = [record.environment.get(key) for record in used]
        texts = dict.fromkeys(_fact(key, value) for value in values)
        if texts:
            found.append((name, findings.listing(list(texts))))
    return found


def _fact(key: str, value: Any) -> str:
    if value is None:
        return units.NOTHING
    if key.endswith("_bytes"):
        return units.byte_count(value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


def _run(run: Mapping[str, Any]) -> dict[str, str]:
    return {
        "wall": units.seconds(run["wall_s"]),
        "inside": units.seconds(run["inside_s"]),
        "overhead": units.seconds(run["overhead_per_cell_s"]),
        "cells": findings.plural(run["cells"], "cell"),
    }
