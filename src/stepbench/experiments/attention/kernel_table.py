"""Registers, spills and shared memory of the project's own kernels, from data that ships with them."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from typing import Any

from stepbench.reporting import units
from stepbench.reporting.columns import Column, value, word
from stepbench.reporting.findings import listing
from stepbench.reporting.points import Row
from stepbench.reporting.tables import Table

# Paths in the package: their names make the table stale when the files change. Figures by the series of Triton.
FIGURES, TILES = "kernels/triton/figures.json", "kernels/triton/tiles.json"
FIGURES_OF = {"3.6": "kernels/triton/figures-3.6.json"}
SHOWN_HEAD_DIMS = (64, 128)
SHOWN_ARCHITECTURES = ("sm_80", "sm_90", "sm_100", "sm_120")  # where the reader's is not known
LIMITS_SHOWN = {"dtype": ("bfloat16",), "head_dim": (64, 128), "architecture": ("sm_90",)}
CONTEXTS = (2048, 16_384)
BAND = 0.15  # of the prediction, as the figures say
# Products of two tiles that each kernel makes, and the kernels of both passes of our implementations.
PRODUCTS = {
    "forward": 2, "forward_one_loop": 2, "backward_keys": 4, "backward_queries": 3, "backward_fused": 5,
    "backward_reduced": 5,
}  # fmt: skip
CALLS = {
    "triton": ("forward", "backward_keys", "backward_queries"),
    "triton_reduced": ("forward", "backward_reduced"),
}
# What the cycles of a round of a kernel's loop go to: the words for it, and the reasons that the replay tells.
WAITS = {
    "products": ("product",),
    "copies": ("copy",),
    "barriers": ("barrier",),
    "fixed latencies": ("latency", "issue"),
    "busy pipes": ("pipe",),
}


def read(file: str | None = None) -> dict[str, Any]:
    """Return a data file; where none is named, the figures of every shipped variant (`rows`), of the Triton here."""
    folder = importlib.resources.files("stepbench")
    found: dict[str, Any] = json.loads(folder.joinpath(file or figures_file()).read_text(encoding="utf-8"))
    return found


def figures_file() -> str:
    """Return the file of the figures that the installed Triton compiles to; without one that is known, the newest."""
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return FIGURES
    return FIGURES_OF.get(".".join(version.split(".")[:2]), FIGURES)


def table(architecture: str | None = None) -> Table:
    """Return a row for each kernel at the head dims that papers show.

    Args:
        architecture: whose tile shapes the reader's GPU uses; None for a row for each of the usual ones.
    """
    kept = read()
    wanted = SHOWN_ARCHITECTURES if architecture is None else (architecture,)
    shown = [row for row in kept["rows"] if row["architecture"] in wanted and row["head_dim"] in SHOWN_HEAD_DIMS]
    # Turing has no bfloat16; elsewhere float16 compiles to the same.
    dtype = "bfloat16" if any(row["dtype"] == "bfloat16" for row in shown) else "float16"
    rows = [row for row in shown if row["dtype"] == dtype]
    caption = (
        f"Compiled without a GPU, with Triton {kept['triton']} on {kept['date']}, in {dtype} and at the tile shapes "
        "that the kernels are launched with: queries × keys, warps of 32 threads, pipeline stages. Programs: how many "
        "fit a multiprocessor at a time. Instructions: those of the tensor cores. A spill is a value that found no "
        "register and is written to memory inside the loop. "
    )
    if architecture is not None:
        caption += f"Shown: {architecture}, whose tile shapes this machine's GPU uses. "
    caption += "All variants: stepbench kernels."
    if tuned := tuned_since(rows, read(TILES)):
        caption += f" The tile shapes of {listing(tuned)} have been tuned since; these figures are of the old ones."
    return Table("Resources of the Triton kernels", caption, rows, COLUMNS)


def limits_table() -> Table:
    """Return a row for each kernel whose limits are predicted, at the head dims that papers show."""
    kept = read()
    rows = limits_rows(kept["rows"], read(TILES), LIMITS_SHOWN)
    caption = (
        f"Predicted, not measured: the code that Triton {kept['triton']} compiles for an H100 SXM (sm_90) is replayed "
        "with the control bits that ptxas wrote. Tensor, exponential, issue and L2: the share of cycles in which the "
        "tensor cores, the exponential unit, the issue port and the copies out of the L2 cache are busy, in the loop "
        "without a mask. Waits: the share in which nothing issues, by what is waited for. Rates count every product "
        "that the kernel makes, in bfloat16, causal, 16 384 tokens and a width of 2048, and mean ±15 %: smaller "
        "differences mean nothing. Known to be further off: a program of eight warps alone on its multiprocessor at "
        "head dim 64 comes out 21 to 28 % too low, and what is above 600 TFLOP/s is an upper bound. Measured: by "
        "stepbench tune, at the context that it was tuned for, counted in the same way."
    )
    return Table("Limits of the Triton kernels on an H100, predicted", caption, rows, LIMITS_COLUMNS)


def limits_rows(
    rows: Sequence[Row], tiles: Mapping[str, Any], shown: Mapping[str, Sequence[Any]] = LIMITS_SHOWN
) -> list[dict[str, Any]]:
    """Return the rows that have limits, flat, with what `tune` measured at the same tile.

    Args:
        rows: of figures.json.
        tiles: the table of tile shapes.
        shown: the values of axes that are wanted.
    """
    found = []
    for row in rows:
        if "limits" not in row or any(row[axis] not in wanted for axis, wanted in shown.items()):
            continue
        limits = row["limits"]
        waits = {name: sum(limits["waits"].get(reason, 0.0) for reason in reasons) for name, reasons in WAITS.items()}
        found.append(
            {
                **{key: row[key] for key in ("kernel", "architecture", "head_dim", "dtype", "tile", "programs")},
                **limits["busy"],
                **waits,
                "round_cycles": limits["round_cycles"],
                **{key: rate for context in CONTEXTS for key, rate in _rates(context, limits["tflops"]).items()},
                "measured": measured(row, tiles),
            }
        )
    return found


def _rates(context: int, tflops: Mapping[str, float]) -> dict[str, float]:
    """Return the predicted rate at a context with the ends of its band."""
    name, rate = f"predicted_{context}", tflops[str(context)]
    return {
        f"{name}_tflops": rate, f"{name}_low_tflops": rate * (1 - BAND), f"{name}_high_tflops": rate * (1 + BAND),
    }  # fmt: skip


def measured(row: Row, tiles: Mapping[str, Any]) -> str:
    """Return the rate that `tune` measured and predicted for the tile of a row; nothing where it was not tuned."""
    for each in tiles[row["table"]]["rows"]:
        if (each["head_dim"], each["dtype"]) != (row["head_dim"], row["dtype"]) or not each["causal"]:
            continue
        for shape, seconds, predicted_s in each.get("timed", {}).get(row["kernel"], []):
            if shape == _shape(row):
                context, tokens, width = (each["problem"][key] for key in ("context", "tokens", "width"))
                work = PRODUCTS[row["kernel"]] * tokens * width * context / 1e12  # 2 m k n, and half of it masked
                beside = "" if predicted_s is None else f" ({work / predicted_s:.0f} predicted)"
                return f"{work / seconds:.0f} TFLOP/s{beside} at {context}"
    return units.NOTHING


def predicted_calls(shape: Mapping[str, Any]) -> list[tuple[str, float, str]]:
    """Return the name, the predicted seconds of forward and backward pass, and a note, for our kernels on an H100.

    Args:
        shape: of the operator: `seq`, `head_dim`, `heads`, `batch`; bf16 and causal.
    """
    rates = {
        row["kernel"]: row["limits"]["tflops"][str(shape["seq"])] * 1e12
        for row in read()["rows"]
        if "limits" in row
        and (row["architecture"], row["head_dim"], row["dtype"]) == ("sm_90", shape["head_dim"], "bfloat16")
    }
    product = shape["batch"] * shape["heads"] * shape["seq"] ** 2 * shape["head_dim"]  # 2 m k n, and half of it masked
    found = []
    for name, kernels in CALLS.items():
        seconds = sum(PRODUCTS[kernel] * product / rates[kernel] for kernel in kernels)
        found.append((name, seconds, f"{'; '.join(kernels)}, ±{BAND:.0%}"))
    return found


def tuned_since(rows: Sequence[Row], tiles: Mapping[str, Any]) -> list[str]:
    """Return the architectures where a kernel is launched with another tile shape than its figures have."""
    found = {}
    for row in rows:
        shipped = [
            each[row["kernel"]]
            for each in tiles[row["table"]]["rows"]
            if each["head_dim"] == row["head_dim"] and each["dtype"] == row["dtype"] and row["kernel"] in each
        ]
        if shipped and _shape(row) not in shipped:
            found[row["architecture"]] = True
    return list(found)


def _shape(row: Row) -> list[int]:
    """Return a row's tile as the table holds it."""
    parts = ("rows", "columns", "warps", "stages", "maxnreg")
    return [row[part] for part in parts if row[part] is not None]


def _share(name: str) -> Column:
    return Column(name, lambda row: f"{row[name]:.0%}")


def _band(context: int) -> Column:
    def text(row: Row) -> str:
        return " to ".join(f"{row[f'predicted_{context}_{end}_tflops']:.0f}" for end in ("low", "high"))

    return Column(f"TFLOP/s predicted at {context}", text)


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
LIMITS_COLUMNS = (
    word("kernel"),
    value("head_dim"),
    word("tile"),
    value("programs"),
    *map(_share, ("tensor", "exponential", "issue", "L2")),
    *map(_share, WAITS),
    *map(_band, CONTEXTS),
    word("measured"),
)
