"""What documents and leaderboards published, in a table of its own: also what no machine here has measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stepbench.comparison.headlines import headlines
from stepbench.comparison.machines import Machine
from stepbench.comparison.pairs import of_host, words
from stepbench.reporting import columns as col
from stepbench.reporting import leaderboard, markup, units
from stepbench.reporting.tables import Table

LEADERBOARD = "experiments/attention/leaderboard.json"
BACKWARD = 2.5  # FLOPs of attention's backward pass over its forward pass: five products where that has two


def table(machines: Iterable[Machine]) -> Table:
    """Return one row for each published result."""
    rows = [row for machine in machines if machine.published is not None for row in _of_machine(machine)]
    rows += _of_board(leaderboard.read(LEADERBOARD))
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


def _of_board(board: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    shape = board["shape"]
    forward = 4 * shape["batch"] * shape["heads"] * shape["seq"] ** 2 * shape["head_dim"]
    forward /= 2 if shape["causal"] else 1
    mask = "causal" if shape["causal"] else "full"
    cell = f"{shape['heads']} heads of {shape['head_dim']}, {shape['seq']} tokens, {shape['dtype']}, {mask}"
    for entry in board["entries"]:
        rate = (1 + BACKWARD) * forward / entry["seconds"]
        yield {
            "device": board["devices"],
            "metric": f"attention, forward and backward as one call: {entry['entry']}",
            "cell": cell,
            "time_s": entry["seconds"],
            "rate": units.flop_rate(rate),
            "rate_per_s": rate,
            "source": board["source"],
        }
