"""Compare each cell with itself: `make same` measures the cells of same_against_same.yaml, then this tells of them.

Processes 0, 2, 4, … of a cell are one side and 1, 3, 5, … the other, so that both are measured in turn. Whatever is
called FASTER or SLOWER here is a mistake of the protocol or of the statistics, and ends with exit code 1.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import config
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States
from stepbench.reporting import columns, frames, marks, statistics, tables, units
from stepbench.reporting.points import Group
from stepbench.reporting.statistics import Verdict

ROOT = Path(__file__).parents[1]
OVERLAY = Path(__file__).with_suffix(".yaml")
EXPERIMENT = "end_to_end"
KEY = "step_s"


def main() -> int:
    """Print the table of verdicts and return 0 if none of them finds a difference."""
    settings: dict[str, Any] = dict(config.read(ROOT / "config.yaml"))
    overlay = yaml.safe_load(OVERLAY.read_text(encoding="utf-8"))
    settings["experiments"][EXPERIMENT] = overlay["experiments"][EXPERIMENT]
    settings |= {key: value for key, value in overlay.items() if key != "experiments"}
    bench = Bench(settings, root=Path.cwd(), schema=ROOT / config.SCHEMA)
    groups = frames.load(States(bench), experiments.load(EXPERIMENT)).groups()
    rows = [row(group, groups) for group in groups]
    print(
        tables.markdown(
            tables.Table(
                "The same against the same", "Whole steps; the even against the odd processes of one cell.", rows
            ),
            ".",
        )
    )
    found = Counter(row["verdict"] for row in rows)
    print(", ".join(f"{count} {verdict}" for verdict, count in found.items()))
    return 0 if set(found) <= {Verdict.SAME.value, Verdict.UNCLEAR.value} else 1


def row(group: Group, groups: list[Group]) -> dict[str, Any]:
    """Return what comes of one cell: the ratio of its halves and the verdict, or why there is none."""
    medians = statistics.medians(group.processes(KEY))
    sides = medians[0::2], medians[1::2]
    compared = statistics.compare(*sides) if all(sides) else None
    return {
        "cell": columns.where(group, groups),
        "processes": " / ".join(str(len(side)) for side in sides),
        "ratio": units.ratio(compared.ratio, compared.low, compared.high) if compared else units.NOTHING,
        "verdict": compared.verdict.value if compared else group.status,
        "noted": marks.text(group.marks),
    }


if __name__ == "__main__":
    sys.exit(main())
