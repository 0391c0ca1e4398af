"""Registers, spills and shared memory of the project's own kernels, from data that ships with them."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from stepbench.reporting import units
from stepbench.reporting.columns import Column, value, word
from stepbench.reporting.findings import listing
from stepbench.reporting.points import Row
from stepbench.reporting.tables import Table

# Paths in the package: their names make the table stale when the files change.
FIGURES, TILES = "kernels/triton/figures.json", "kernels/triton/tiles.json"
SHOWN = {"dtype": ("bfloat16",), "head_dim": (64, 128)}


def read(file: str = FIGURES) -> dict[str, Any]:
    """Return a data file: the figures of every shipped variant (`rows`), or the tile shapes by architecture."""
    folder = importlib.resources.files("stepbench")
    found: dict[str, Any] = json.loads(folder.joinpath(file).read_text(encoding="utf-8"))
    return found


def table() -> Table:
    """Return a row for each kernel and architecture at the head dims that papers show."""
    kept = read()
    rows = [row for row in kept["rows"] if all(row[key] in wanted for key, wanted in SHOWN.items())]
    caption = (
        f"Compiled without a GPU, with Triton {kept['triton']} on {kept['date']}, in bfloat16 and at the tile shapes "
        "that the kernels are launched with: queries × keys, warps of 32 threads, pipeline stages. Programs: how many "
        "fit a multiprocessor at a time. Instructions: those of the tensor cores. A spill is a value that found no "
        "register and is written to memory inside the loop. All variants: stepbench kernels."
    )
    if tuned := tuned_since(rows, read(TILES)):
        caption += f" The tile shapes of {listing(tuned)} have been tuned since; these figures are of the old ones."
    return Table("Resources of the Triton kernels", caption, rows, COLUMNS)


def tuned_since(rows: Sequence[Row], tiles: Mapping[str, Any]) -> list[str]:
    """Return the architectures where a kernel is launched with another tile shape than its figures have."""
    found = {}
    for row in rows:
        shipped = [
            each[row["kernel"]]
            for each in tiles[row["architecture"]]["rows"]
            if each["head_dim"] == row["head_dim"] and each["dtype"] == row["dtype"] and row["kernel"] in each
        ]
        if shipped and [row[part] for part in ("rows", "columns", "warps", "stages")] not in shipped:
            found[row["architecture"]] = True
    return list(found)


def _instructions(row: Row) -> str:
    words = [f"{count} {name}" for name, count in row["instructions"].items()]
    return ", ".join([*words, *(["serialized"] if row["serialized"] else [])]) or units.NOTHING


COLUMNS = (
    word("kernel"),
    word("architecture"),
    value("head_dim"),
    word("dtype"),
    word("causal"),
    word("tile"),
    value("registers"),
    value("spill_bytes", "spills", units.byte_count),
    value("shared_bytes", "shared memory", units.byte_count),
    value("programs"),
    Column("instructions", _instructions, numeric=False),
)
