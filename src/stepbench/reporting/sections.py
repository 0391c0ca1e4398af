"""The report's sections: their order, and what one on an experiment is made of, for the Markdown and for the page."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
import yaml

from stepbench.pipeline.bench import Bench
from stepbench.reporting import figures, findings, markup, page, page_figures, page_tables, points, rendering, tables
from stepbench.reporting.columns import STATUS, word
from stepbench.reporting.embedded import Embedded
from stepbench.reporting.frames import Results
from stepbench.reporting.tables import Shown, Table

ORDER = "sections.yaml"
MACHINES, CHANGES = OTHERS = ("machines", "changes")  # in it the places of the comparison and of what changed
OTHER = "Other questions"
GENERAL = ("warnings", "cells without numbers")  # kinds of findings that answer no question


def order(file: Path, names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the part and the name of each section in the order of the file; `names` are the experiments that run.

    Raises:
        FileNotFoundError: there is no such file.
    """
    listed = [
        (part, name)
        for each in yaml.safe_load(file.read_text(encoding="utf-8"))
        for part, members in each.items()
        for name in members
    ]
    known = list(names)
    others = [(OTHER, name) for name in known if name not in {name for _, name in listed}]
    return [each for each in (*listed, *others) if each[1] in (*known, *OTHERS)]


class Target:
    """Where a report goes: the Markdown, or the page, which has blocks of HTML and carries its records along."""

    def __init__(self, bench: Bench, folder: Path, *, for_page: bool) -> None:
        """Begin with nothing; `folder` is that of the file."""
        self.root = bench.root
        self.beside = Path(os.path.relpath(folder, bench.root)).as_posix()
        self.for_page = for_page
        self.embedded = Embedded(bench.root)
        self.blocks: dict[str, str] = {}
        self.figures = 0
        self.letters: set[str] = set()  # whose outlines are on the page

    def table(self, shown: Shown, level: int = 3, name: str = "") -> str:
        """Return a table as Markdown with its heading; on the page its rows are a block of HTML.

        Args:
            shown: the table.
            level: of its heading.
            name: unique on the page; made up if there is none.
        """
        if not self.for_page or not shown.rows:
            return tables.markdown(shown, self.beside, level, legend=False)
        name = name or f"table-{len(self.blocks)}"
        text = page_tables.render(shown, name, self.embedded, page.inline, self.link)
        if len(shown.rows) > page.FOLD_ROWS:
            text = f"<details><summary>Show the {len(shown.rows)} rows</summary>\n{text}</details>\n"
        self.blocks[name] = text
        introduction = tables.introduction(shown)
        return f"{'#' * level} {markup.escape(shown.title)}\n\n{introduction}\n\n{page.block(name)}\n"

    def figure(self, path: str, name: str, title: str, caption: str, rows: Mapping[frozenset[str], str]) -> Any:
        """Return `number`, `title`, `caption` and `text` of a figure; `text` is the reason where there is none."""
        kept = figures.read(self.root / f"{path}.json")
        if kept.empty:
            return kept.empty
        self.figures += 1
        alt = f"{title}. {caption}"
        text = f"![{markup.escape(alt)}]({self.link(f'{path}.svg')})"
        if self.for_page:
            svg = (self.root / f"{path}.svg").read_text(encoding="utf-8")
            self.blocks[name] = page_figures.render(svg, name, kept, alt, rows, self.letters)
            text = page.block(name)
        caption = " ".join(filter(None, (caption, kept.description)))
        return {"number": self.figures, "title": title, "caption": caption, "text": text}

    def link(self, path: str) -> str:
        """Return a link from the text to a path that is relative to the root."""
        return quote(os.path.relpath(path, self.beside), safe="/~,.-_")


def section(
    environment: jinja2.Environment,
    bench: Bench,
    experiment: Any,
    results: Results,
    captions: Mapping[str, str],
    target: Target,
) -> str:
    """Return the section on one experiment.

    Raises:
        FileNotFoundError: a table, a figure or the findings were not rendered, or a figure has no caption.
    """
    name = experiment.name
    folders = {kind: rendering.folder_of(bench.machine, kind, name) for kind in ("tables", "figures")}
    every = {each: tables.read(bench.root / folders["tables"] / f"{each}.json") for each in experiment.table_names}
    found = findings.read(bench.root / rendering.findings_file(bench.machine, name))
    gaps = _gaps(results)
    measured = any(points.is_ok(row) for row in results.rows)
    shown = {each: table for each, table in every.items() if table.rows and (measured or not _is_of_cells(table))}
    rows: dict[frozenset[str], str] = {}
    for each, table in shown.items():
        rows = page_tables.rows_of(table, f"{name}-{each}") | rows
    drawn = [
        target.figure(
            f"{folders['figures']}/{each}",
            f"{name}.{each}",
            f"{experiment.title}: {each.replace('_', ' ')}",
            _caption(each, captions),
            rows,
        )
        for each in experiment.figure_names
    ]
    answers = [each for each in found if each.kind not in GENERAL] if measured else []
    sources = {each: f"results/{bench.machine}/{each}" for each in (name, *experiment.reads)}
    nothing = [each for each in drawn if isinstance(each, str)] if measured else []
    nothing += [f"{table.title}: {table.empty}" for table in every.values() if measured and not table.rows]
    texts = [(table, target.table(table, name=f"{name}-{each}")) for each, table in shown.items()]
    texts += [(gaps, target.table(gaps, name=f"{name}-gaps"))] if gaps.rows else []
    return environment.get_template("section.md.j2").render(
        title=experiment.title,
        question=experiment.question,
        answer=" ".join(each.text for each in (answers[:1] or found)),
        findings=[each.text for each in found if each not in answers[:1]] if answers else [],
        figures=[each for each in drawn if not isinstance(each, str)],
        tables=[{"text": text, "title": table.title, "rows": len(table.rows)} for table, text in texts],
        nothing=list(dict.fromkeys(nothing)),
        sources=[
            f"[{markup.escape(each)}]({target.link(path)}/)"
            for each, path in sources.items()
            if measured and (bench.root / path).is_dir()
        ],
        # The page folds long tables by itself; GitHub needs an element for it.
        fold=None if target.for_page else page.FOLD_ROWS,
    )


def _is_of_cells(table: Shown) -> bool:
    """Return whether the rows of a table are cells, which say nothing where none was measured."""
    return any("status" in row.values for row in table.rows)


def _caption(name: str, captions: Mapping[str, str]) -> str:
    if name not in captions:
        raise FileNotFoundError(f"report/captions must have a caption of the figure {name}, got {sorted(captions)}")
    return captions[name]


def _gaps(results: Results) -> Shown:
    """Return the cells that failed, are stale or cannot be read; of what was not measured there is only a number."""
    rows = [
        {
            "cell": Path(row["path"]).stem.replace(",", ", "),
            "status": points.label(row),
            "reason": "; ".join(points.why(row)),
            "records": {"": [row["path"]]},
        }
        for row in results.rows
        if points.label(row) not in ("ok", "not measured")
    ]
    return tables.show(Table("Cells without numbers", "", rows, [word("cell"), STATUS]), whole=True)
