"""Compare each cell with itself: `make same` measures the cells of same_against_same.yaml, then this tells of them.

Processes 0, 2, 4, … of a cell are one side and 1, 3, 5, … the other, so that both are measured in turn. Whatever is
called FASTER or SLOWER here is a mistake of the protocol or of the statistics, and ends with exit code 1. So does a
phase that takes another time by itself than inside of a longer step, beyond the intervals and 5 %.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from stepbench.experiments import experiment as experiments
from stepbench.experiments.end_to_end import reference
from stepbench.pipeline import config
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States
from stepbench.reporting import agreement, columns, comparisons, frames, marks, statistics, tables, units
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group
from stepbench.reporting.statistics import Verdict

ROOT = Path(__file__).parents[1]
OVERLAY = Path(__file__).with_suffix(".yaml")
EXPERIMENT = "end_to_end"
KEY = "step_s"


def main() -> int:
    """Print the tables and return 0 if nothing differs from itself and each quantity agrees across passes."""
    settings: dict[str, Any] = dict(config.read(ROOT / "config.yaml"))
    overlay = yaml.safe_load(OVERLAY.read_text(encoding="utf-8"))
    settings["experiments"][EXPERIMENT] = overlay["experiments"][EXPERIMENT]
    settings |= {key: value for key, value in overlay.items() if key != "experiments"}
    bench = Bench(settings, root=Path.cwd(), schema=ROOT / config.SCHEMA)
    results = frames.load(States(bench), experiments.load(EXPERIMENT))
    groups = results.groups()
    rows = [row(group, groups) for group in groups]
    caption = "Whole steps; the even against the odd processes of one cell."
    print(tables.markdown(tables.Table("The same against the same", caption, rows), "."))
    print(tables.markdown(implementations(results), "."))
    found = reference.agreements(dataclasses.replace(results, others={}))
    print(tables.markdown(agreement.table(found, "A phase inside of a longer step and by itself."), "."))
    # Compiled, a forward pass without autograd is another graph, which writes no saved activations.
    judged = [each for each in found if each.first.groups[0].point["implementation"] == "eager"]
    verdicts, agreed = Counter(row["verdict"] for row in rows), Counter(each.verdict for each in judged)
    print(", ".join(f"{count} {verdict}" for verdict, count in (*verdicts.items(), *agreed.items())))
    return exit_code(verdicts, agreed)


def exit_code(verdicts: Collection[str], agreed: Collection[str]) -> int:
    """Return 0 if no half differs from the other half of its cell, and no quantity from itself in another cell."""
    same = set(verdicts) <= {Verdict.SAME.value, Verdict.UNCLEAR.value}
    return 0 if same and agreement.DIFFERS not in agreed else 1


def implementations(results: Results) -> tables.Table:
    """Return compiled against eager, which the allocator once made 1.48 times as fast; no verdict is expected of it."""
    pairs = comparisons.pairs(results, "implementation", reference.REFERENCE["implementation"], KEY)
    empty = "No cell has both implementations."
    return comparisons.table(pairs, "Compiled against eager", "With the allocator held equal.", empty, KEY)


def row(group: Group, groups: list[Group]) -> dict[str, Any]:
    """Return what comes of one cell: the ratio of its halves and the verdict, or why there is none."""
    medians = statistics.medians(group.processes(KEY))
    sides = medians[0::2], medians[1::2]
    compared = statistics.compare(sides[0], sides[1]) if all(sides) else None
    return {
        "cell": columns.where(group, groups),
        "processes": " / ".join(str(len(side)) for side in sides),
        "ratio": units.ratio(compared.ratio, compared.low, compared.high) if compared else units.NOTHING,
        "verdict": compared.verdict.value if compared else group.status,
        "noted": marks.text(group.marks),
    }


if __name__ == "__main__":
    sys.exit(main())
