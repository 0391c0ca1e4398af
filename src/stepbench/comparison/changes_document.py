"""What changed, as a document: a table for each cause, and the figure of the trend.

report/changes.md and the writeup's section are both made from it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepbench.comparison import changes, trend
from stepbench.comparison.changes import Change, Changes
from stepbench.comparison.known import Known, Point
from stepbench.pipeline.fingerprint import SOURCE
from stepbench.reporting import columns as col
from stepbench.reporting import main_time, markup, nodes, past, statistics, tables, units
from stepbench.reporting.findings import plural
from stepbench.reporting.sections import Target
from stepbench.reporting.statistics import Verdict
from stepbench.reporting.tables import Shown, Table

TITLE = "What changed"
FOLDER = "report"
TREND = "trend"
CAPTION = (
    f"Points measured at least {trend.LEAST} times, on different days or with different code or software; those that "
    "changed most."
)


@dataclass(frozen=True)
class Document:
    """What changed on this machine.

    Attributes:
        lead: how many points, and their verdicts.
        parts: a table for each cause.
        last: what could not be compared.
        trends: how many points the figure of trends shows.
    """

    lead: str
    parts: Sequence[Shown] = ()
    last: str = ""
    trends: int = 0


def build(points: Mapping[Point, Sequence[Known]], found: Changes) -> Document:
    """Return the document of the changes that were found among points."""
    verdicts = [change.comparison.verdict for change in found.found]
    counts = ", ".join(f"{verdicts.count(each)} {each}" for each in Verdict if each in verdicts)
    lead = "Nothing was measured with other code or software before, on this machine and with the same settings."
    if found.peaks and not found.found:
        lead = f"The peak memory of {plural(len(found.peaks), 'point')} is another one than before."
    if found.found:
        lead = (
            f"{plural(len(found.found), 'point')} measured by other code or software before: {counts}. Old and new "
            "were measured at different times, so a difference may be the machine's; stepbench ab measures in turn."
        )
    last = []
    if found.waiting:
        last.append(f"{plural(found.waiting, 'point')} measured before without a number of today's code and software")
    if found.redefined:
        last.append(
            f"{plural(found.redefined, 'point')} measured before only with other settings or on another machine"
        )
    return Document(
        lead,
        [tables.show(table) for table in (*map(_table, found.by_cause()), *_peaks(found))],
        f"Not compared: {'; '.join(last)}." if last else "",
        min(len(trend.find(points)), trend.MOST_SHOWN),
    )


def markdown(
    document: Document,
    level: int = 1,
    table: Callable[[Shown, int], str] = lambda shown, level: tables.markdown(shown, FOLDER, level),
    figure: str = "",
) -> str:
    """Return the document as Markdown.

    Args:
        document: what `build` or `read` returned.
        level: of its first heading.
        table: from a table and the level of its heading to Markdown; as in the report's folder if nothing is given.
        figure: the figure of the trends with its caption, in Markdown.
    """
    head, below = "#" * level, "#" * (level + 1)
    texts = [f"{head} {TITLE}", markup.escape(document.lead)]
    texts += [table(part, level + 1).rstrip() for part in document.parts]
    texts.append(markup.escape(document.last))
    if document.trends:
        texts += [f"{below} Over time", figure]
    return "\n\n".join(filter(None, texts)) + "\n"


def picture(path: str) -> str:
    """Return the figure of the trends as Markdown in the report's folder; `path` is relative to the root."""
    return f"![{TREND}]({os.path.relpath(path, FOLDER)}.svg)\n\n**Figure: {TREND}.** {markup.escape(CAPTION)}"


def section(document: Document, path: str, target: Target) -> str:
    """Return the section of a report; `path` is that of the figure of the trends, from the root, without its ending."""
    figure = ""
    if document.trends:
        drawn = target.figure(path, f"changes.{TREND}", f"{TITLE}: {TREND}", CAPTION, {})
        title = f"**Figure {drawn['number']}. {markup.escape(drawn['title'])}.**"
        figure = f"{drawn['text']}\n\n{title} {markup.escape(drawn['caption'])}"
    return markdown(document, 2, target.table, figure)


def dump(document: Document) -> str:
    """Return the document as JSON, which `read` reads."""
    return json.dumps(dataclasses.asdict(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(file: Path) -> Document:
    """Return the document that was written with `dump`.

    Raises:
        FileNotFoundError: there is none.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    return Document(**content | {"parts": [tables.load(each) for each in content["parts"]]})


def _table(group: Sequence[Change]) -> Table:
    rows = [_row(change) for change in group]
    unit = col.time_unit(rows, ("old", "new"))
    columns = [
        col.value("experiment", text=markup.escape, numeric=False),
        col.value("point", text=markup.escape, numeric=False),
        col.interval("old", unit),
        col.interval("new", unit),
        col.ratio("speedup", "ratio"),
        col.value("verdict", numeric=False),
        col.value("processes", numeric=False),
        col.WARNINGS,
        nodes.COLUMN,
        col.value("settles", "to settle it", _code, numeric=False, droppable=True),
    ]
    caption = (
        f"{_commits(group)}The ratio is the speed now over that before (above 1: faster now), with its "
        f"{100 * statistics.RATIO_LEVEL:.0f} % interval. A verdict needs {statistics.MIN_PROCESSES} processes a side."
    )
    return Table(changes.causes(group[0].causes), caption, rows, columns)


def _row(change: Change) -> dict[str, Any]:
    sides = {"old": change.old, "new": change.new}
    times = {
        key: value
        for name, side in sides.items()
        for key, value in col.statistics_of(
            name, statistics.summarize(main_time.processes(each.record for each in side))
        ).items()
    }
    return {
        "experiment": change.point.experiment,
        "point": change.point.words,
        "time": main_time.label(change.new[0].record),
        **times,
        **col.ratio_of("speedup", change.comparison),
        "verdict": change.comparison.verdict.value,
        "why": change.comparison.why,
        "processes": " / ".join(map(str, change.comparison.processes)),
        "settles": change.settles or "",
        **col.warned(change.warnings),
        **nodes.row([each.record for each in side] for side in sides.values()),
        col.RECORDS: {name: [each.path for each in side] for name, side in sides.items()},
    }


def _peaks(found: Changes) -> Iterator[Table]:
    if not found.peaks:
        return
    rows = [
        {
            "experiment": peak.point.experiment,
            "point": peak.point.words,
            "causes": changes.causes(peak.causes),
            "old_bytes": peak.old_bytes,
            "new_bytes": peak.new_bytes,
            "peak_ratio": peak.ratio,
            col.RECORDS: {"old": [each.path for each in peak.old], "new": [each.path for each in peak.new]},
        }
        for peak in found.peaks
    ]
    columns = [
        col.value("experiment", text=markup.escape, numeric=False),
        col.value("point", text=markup.escape, numeric=False),
        col.value("old_bytes", "old", units.byte_count),
        col.value("new_bytes", "new", units.byte_count),
        col.value("peak_ratio", "new over old", units.ratio),
        col.value("causes", "what differs", markup.escape, numeric=False),
    ]
    caption = "The largest peak of each side, where the two differ by more than 1 %. Above 1: it needs more now."
    yield Table("Peak memory", caption, rows, columns)


def _commits(group: Sequence[Change]) -> str:
    """Return which commits a changed source lies between."""
    if not any(each.part == SOURCE for each in group[0].causes):
        return ""
    sides = ([each for change in group for each in change.old], [each for change in group for each in change.new])
    named = [sorted({past.commit(each.record.environment) or "" for each in side} - {""}) for side in sides]
    return f"Commit {', '.join(named[0])} before, {', '.join(named[1])} now. " if all(named) else ""


def _code(text: str) -> str:
    return f"`{text}`" if text else ""
