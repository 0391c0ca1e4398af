"""What the project's own kernels compile to: registers, spills and shared memory, as data that ships with them."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

from stepbench.reporting import units
from stepbench.reporting.tables import Column, Table, frame, value

# The figures lie beside this module. It is named, and not imported: what is rendered from them is rendered anew when
# they change, and no table needs Triton.
BESIDE = "stepbench.kernels.triton.tiles:KERNELS"
FILE = "figures.json"
SHOWN = {"dtype": ("bfloat16",), "head_dim": (64, 128)}


def read() -> dict[str, Any]:
    """Return the figures of every shipped variant (`rows`), with the `triton` and the `date` of their making."""
    folder = importlib.resources.files("stepbench").joinpath(*BESIDE.partition(":")[0].split(".")[1:-1])
    found: dict[str, Any] = json.loads(folder.joinpath(FILE).read_text(encoding="utf-8"))
    return found


def table(name: str) -> Table:
    """Return a row for each kernel and architecture at the head dims that papers show."""
    kept = read()
    rows = [row for row in kept["rows"] if all(row[key] in wanted for key, wanted in SHOWN.items())]
    caption = (
        f"Compiled without a GPU, with Triton {kept['triton']} on {kept['date']}, in bfloat16 and at the tile shapes "
        "that the kernels are launched with: queries × keys, warps of 32 threads, stages of the pipeline. Programs: so "
        "many fit a multiprocessor at a time. Instructions: those of the tensor cores. A spill would be a value "
        "without a register, written to memory inside of the loop. All of them: python -m stepbench kernels."
    )
    columns = [
        value("kernel", text=lambda found: str(found).replace("_", " "), numeric=False),
        value("architecture", text=lambda found: f"`{found}`", numeric=False),
        value("head_dim", "head dim"),
        value("tile", numeric=False),
        value("registers"),
        value("spill_bytes", "spills", units.byte_count),
        value("shared_bytes", "shared memory", units.byte_count),
        value("programs"),
        Column("instructions", lambda row: ", ".join(f"{n} {sign}" for sign, n in row["instructions"].items()) or "–"),
    ]
    return Table(name, "What the Triton kernels compile to", caption, frame(rows), columns)
