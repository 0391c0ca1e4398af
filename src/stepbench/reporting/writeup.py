"""The writeup: report/writeup.md and report/writeup.html, made from templates and the JSON of what was rendered."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from stepbench.pipeline.bench import Bench
from stepbench.pipeline.records import Record
from stepbench.pipeline.state import States
from stepbench.process.storage import write_atomically
from stepbench.reporting import figures, findings, frames, markup, page, points, protocol, rendering, tables, units
from stepbench.reporting.frames import Results

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
    comparison: str = "",
) -> None:
    """Write the report about this machine.

    Args:
        states: those of the configuration; its schema's folder holds report/templates and report/captions.
        experiments: what to report on, in this order; their tables, figures and findings have been rendered.
        out_md: where the Markdown goes; links in it are relative to its folder.
        out_html: where the page goes, which needs no other file.
        run_facts: `cells`, `wall_s`, `inside_s` and `overhead_per_cell_s` of the last run that measured anything.
        comparison: the section on other machines, Markdown with links that are relative to `out_md`.

    Raises:
        FileNotFoundError: a table, a figure or the findings were not rendered, or a figure has no caption.
        jinja2.UndefinedError: a template uses a value that is missing.
    """
    bench = states.bench
    results = {experiment.name: frames.load(states, experiment) for experiment in experiments}
    folder = bench.schema.parent / "report"
    environment = _environment(folder / "templates")
    context = _context(bench, experiments, results, run_facts) | {"comparison": comparison}
    for target, for_page in ((out_md, False), (out_html, True)):
        beside = Path(os.path.relpath(target.parent, bench.root)).as_posix()
        sections = [
            _section(environment, bench, each, results[each.name], folder / "captions", beside, for_page)
            for each in experiments
        ]
        text = environment.get_template("writeup.md.j2").render(**context, sections=sections)
        text = re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
        if for_page:
            body, contents = page.render(text, target.parent)
            template = environment.get_template("writeup.html.j2")
            # Safe: markdown-it escapes all HTML of the Markdown that it is made from.
            text = template.render(title=context["title"], contents=contents, body=Markup(body))  # noqa: S704
        write_atomically(target, text)


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


def _environment(folder: Path) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,  # a missing number is an error, never an empty string
        # In Markdown each value goes through the filter `md`; HTML's escaping would spoil it.
        autoescape=jinja2.select_autoescape(["html.j2"]),
        keep_trailing_newline=True,
    )
    environment.filters["md"] = markup.escape
    return environment


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


def _section(
    environment: jinja2.Environment,
    bench: Bench,
    experiment: Any,
    results: Results,
    caption_folder: Path,
    beside: str,
    for_page: bool,
) -> str:
    """Return the section on one experiment; `beside` is the folder of the text, relative to the root."""
    folders = {kind: rendering.folder_of(bench.machine, kind, experiment.name) for kind in ("tables", "figures")}
    shown = [tables.read(bench.root / folders["tables"] / f"{name}.json") for name in experiment.table_names]
    captions_found = captions(caption_folder / f"{experiment.name}.rst") if experiment.figure_names else {}
    sources = {name: f"results/{bench.machine}/{name}" for name in (experiment.name, *experiment.reads)}
    return environment.get_template("section.md.j2").render(
        title=experiment.title,
        question=experiment.question,
        findings=[
            each.text for each in findings.read(bench.root / rendering.findings_file(bench.machine, experiment.name))
        ],
        figures=[
            _figure(bench.root, f"{folders['figures']}/{name}", name, captions_found, beside)
            for name in experiment.figure_names
        ],
        tables=[{"text": tables.markdown(each, beside), "title": each.title, "rows": len(each.rows)} for each in shown],
        sources=[
            markup.link(name, f"{os.path.relpath(path, beside)}/")
            for name, path in sources.items()
            if (bench.root / path).is_dir()
        ],
        # The page folds long tables by itself; GitHub needs an element for it.
        fold=None if for_page else page.FOLD_ROWS,
        gaps=_gaps(results, beside),
    )


def _figure(root: Path, path: str, name: str, captions_found: Mapping[str, str], beside: str) -> dict[str, str]:
    if name not in captions_found:
        raise FileNotFoundError(
            f"report/captions must have a caption of the figure {name}, got {sorted(captions_found)}"
        )
    held = figures.read(root / f"{path}.json")
    return {
        "title": name,
        "path": os.path.relpath(f"{path}.svg", beside),
        "caption": " ".join(part for part in (captions_found[name], held.description) if part),
    }


def _gaps(results: Results, beside: str) -> list[dict[str, str]]:
    found = []
    for row in results.rows:
        label = points.label(row)
        if label not in ("ok", "not measured"):  # the findings give the number of these, and there is no reason
            found.append(
                {
                    "cell": Path(row["path"]).stem,
                    "status": label,
                    "reason": "; ".join(points.why(row)) or units.NOTHING,
                    "link": markup.records({"": [row["path"]]}, beside),
                }
            )
    return found
