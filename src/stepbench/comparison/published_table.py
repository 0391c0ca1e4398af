"""What documents and leaderboards published, in a table of its own: also what no machine here has measured."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stepbench.comparison.headlines import headlines
from stepbench.comparison.machines import Machine
from stepbench.comparison.pairs import of_host, words
from stepbench.reporting import columns as col
from stepbench.reporting import markup, units
from stepbench.reporting.tables import Table

LEADERBOARDS = Path(__file__).parent / "published_leaderboards.json"
BACKWARD = 2.5  # FLOPs of attention's backward pass over its forward pass: five products where that has two


def table(machines: Iterable[Machine]) -> Table:
    """Return one row for each published result."""
    rows = [row for machine in machines if machine.published is not None for row in _of_machine(machine)]
    rows += [row for board in _boards() for row in _of_board(board)]
    columns = [
        col.word("device"),
        col.word("metric"),
        col.word("cell"),
        col.value("time_s", "time", units.seconds),
        col.Column("rate", lambda row: markup.escape(row["rate"])),
        col.word("source", secondary=True),
    ]
    caption = (
        "Means that others published; stepbench did not measure them, and what they held constant is what their "
        "documents state. Gloo computes on the host's CPU, whatever GPUs stand beside it."
    )
    return Table("What others published", caption, rows, columns)


def _of_machine(machine: Machine) -> Iterator[dict[str, Any]]:
    for each in headlines(machine.records):
        seconds = each.work / each.rate
        device = str(each.records[0].environment["device_name"])
        yield {
            "device": f"host of {device}" if of_host(each) else device,
            "metric": each.metric.name,
            "cell": words(each),
            "time_s": seconds,
            "rate": each.metric.text(each.rate),
            "rate_per_s": each.rate,
            "source": machine.published,
        }
    for record in machine.records:
        if (peak := record.scalars.get("peak_memory_bytes")) is not None:
            axes = ("size", "context", "precision", "passes")
            yield {
                "device": str(record.environment["device_name"]),
                "metric": "peak memory",
                "cell": ", ".join(col.axis_words(record.cell[axis]) for axis in axes if axis in record.cell),
                "time_s": None,
                "rate": units.byte_count(peak),
                "rate_per_s": None,
                "source": machine.published,
            }


def _boards() -> list[Mapping[str, Any]]:
    content = json.loads(LEADERBOARDS.read_text(encoding="utf-8"))
    boards: list[Mapping[str, Any]] = content["leaderboards"]
    return boards


def _of_board(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    forward = (
        4 * board["batch"] * board["heads"] * board["seq"] ** 2 * board["head_dim"] / (2 if board["causal"] else 1)
    )
    places = [(f"place {place}", entry) for place, entry in enumerate(board["entries_ms"], start=1)]
    mask = "causal" if board["causal"] else "full"
    shape = f"{board['heads']} heads of {board['head_dim']}, {board['seq']} tokens, {board['dtype']}, {mask}"
    for name, milliseconds in [*places, ("baseline", board["baseline_ms"])]:
        seconds = milliseconds / 1000
        rate = (1 + BACKWARD) * forward / seconds
        yield {
            "device": board["device"],
            "metric": f"attention, {board['timed']}: {name}",
            "cell": shape,
            "time_s": seconds,
            "rate": units.flop_rate(rate),
            "rate_per_s": rate,
            "source": board["title"],
        }
