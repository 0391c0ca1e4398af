"""What the shipped kernels cost before they ever run, for every GPU that Triton compiles for: kept in figures files.

The figures are kept so that they can be shown without compiling anything. They depend on the version of Triton:
figures.json is of the one that is installed with the project's torch, figures-3.6.json of an older one. Each file holds
a hash of what it was compiled from, and is refused once that has changed.
"""

import ast
import datetime
import hashlib
import inspect
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import triton

from stepbench.architectures import TABLE_OF
from stepbench.kernels.triton import backward, forward, primitives, single
from stepbench.kernels.triton.compiling import SHARED_BYTES, Compiled, compile_variant, kernel_source
from stepbench.kernels.triton.limits import grid, machine, predict, replay, sass
from stepbench.kernels.triton.tiles import (
    KERNELS,
    Tile,
    read_table,
    rows_for,
    statistics_rows,
    triton_series,
)

__all__ = ["ARCHITECTURES", "FIGURES", "SHARED_BYTES", "figures_path", "read_figures", "shipped_variants", "table"]

FIGURES = Path(__file__).with_name("figures.json")
SERIES = "3.7"  # of Triton, that FIGURES is of
# Of the kept figures. What shares a table compiles to the same figures, and so do the two types of 16 bits: a slow test
# compiles them all.
ARCHITECTURES = tuple(dict.fromkeys(TABLE_OF.values()))


def figures_path(series: str) -> Path:
    """Return the file of the figures that a version of Triton gives, such as "3.6"."""
    return FIGURES if series == SERIES else FIGURES.with_name(f"figures-{series}.json")


def table(
    architectures: Sequence[str] = ARCHITECTURES,
    head_dims: Sequence[int] | None = None,
    dtypes: Sequence[str] | None = None,
    processes: int | None = None,
) -> list[dict[str, Any]]:
    """Compile every kernel at the tile shapes of tiles.json and return one row for each variant.

    Takes one to two seconds a variant and core at first; Triton's cache makes it a fraction of that later.

    Args:
        architectures: of the table.
        head_dims: D, all of the table by default.
        dtypes: names such as "bfloat16", all of the table by default.
        processes: at a time, one per core by default.

    Returns:
        Rows with kernel, architecture, head_dim, dtype, causal ("yes", "no" or "both"), tile, rows, columns, warps,
        stages, maxnreg, and the figures of `with_figures`.
    """
    variants = [
        variant
        for architecture in architectures
        for variant in shipped_variants(architecture)
        if (head_dims is None or variant["head_dim"] in head_dims) and (dtypes is None or variant["dtype"] in dtypes)
    ]
    # Spawned, because Triton's compiler and torch have threads that a fork would lose.
    with ProcessPoolExecutor(processes or os.cpu_count(), mp_context=get_context("spawn")) as pool:
        return list(pool.map(with_figures, variants, chunksize=4))


def kept_path() -> Path:
    """Return the file of the figures of the installed Triton; without one of its series, the newest."""
    path = figures_path(_series_of(triton.__version__))
    return path if path.exists() else FIGURES


def read_figures(path: Path = FIGURES) -> dict[str, Any]:
    """Return the kept figures: triton and date of their making, digest, band of the predicted rates, and rows.

    Raises:
        ValueError: the tiles of tiles.json or the kernels have changed since.
    """
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if figures["digest"] != (digest := figures_digest(_series_of(figures["triton"]))):
        raise ValueError(
            f"{path.name} must be of today's kernels and tile shapes, digest {digest}, got {figures['digest']}: "
            "`python -m stepbench kernels --compile` makes it anew"
        )
    return figures


def write_figures(rows: Sequence[Mapping[str, Any]], path: Path | None = None) -> None:
    """Keep what `table` has compiled for every shipped variant of `ARCHITECTURES`, one row a line."""
    path = path or figures_path(_series_of(triton.__version__))
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    head = {"triton": triton.__version__, "date": today, "digest": figures_digest(), "band": predict.BAND}
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    body = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in rows)
    path.write_text("\n".join(["{", *lines, '  "rows": [', body, "  ]", "}", ""]), encoding="utf-8")


def _series_of(version: str) -> str:
    return ".".join(version.split(".")[:2])


def figures_digest(series: str | None = None) -> str:
    """Return a short hash of the shipped variants, of the code of kernels and `limits`, and of fitted constants.

    Docstrings and comments are no code.
    """
    variants = [variant for architecture in ARCHITECTURES for variant in shipped_variants(architecture, series)]
    parts = (forward, backward, single, primitives, kernel_source, machine, sass, replay, grid, predict)
    code = [_code_of(inspect.getsource(part)) for part in parts]
    constants = asdict(machine.Machine())
    return hashlib.sha256(json.dumps([variants, code, constants], sort_keys=True).encode()).hexdigest()[:16]


def _code_of(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.unparse(tree)  # unlike a dump, the same text in every version of Python


def shipped_variants(architecture: str, series: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield what tiles.json says for one architecture, once for each kernel that is compiled, without its figures.

    Causality is no compile-time constant, so two rows of the table that differ in nothing else are one variant; a row
    for float16 is none where the one for bfloat16 has the same tiles.

    Args:
        architecture: a key of `TABLE_OF`.
        series: of Triton, by default of the installed one.
    """
    section = read_table()[TABLE_OF[architecture]]
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    table_rows = rows_for(section["rows"], series or triton_series())
    for row in table_rows:
        if row["dtype"] == "float16" and {**row, "dtype": "bfloat16"} in table_rows:
            continue
        rows = statistics_rows(row["head_dim"])
        shapes = {name: row.get(name) for name in KERNELS} | {"row_statistics": [rows, rows, 4, 1]}
        if architecture == predict.ARCHITECTURE and row["dtype"] in predict.DTYPES:
            shapes["forward_one_loop"] = row["forward"]
        for kernel, shape in shapes.items():
            if shape is None:
                continue
            causal = "yes" if row["causal"] else "no"
            tile = Tile(*shape)
            variant = found.setdefault(
                (kernel, row["head_dim"], row["dtype"], *shape),
                {
                    "kernel": kernel,
                    "architecture": architecture,
                    "table": TABLE_OF[architecture],
                    "head_dim": row["head_dim"],
                    "dtype": row["dtype"],
                    "causal": causal,
                    "tile": str(tile),
                    **vars(tile),
                    "descriptors": section["descriptors"] and kernel != "row_statistics" and row["dtype"] != "float32",
                },
            )
            if variant["causal"] != causal:
                variant["causal"] = "both"
    yield from found.values()


def compile_shipped(variant: Mapping[str, Any]) -> Compiled:
    """Compile a variant of `shipped_variants`."""
    keys = ("kernel", "architecture", "head_dim", "dtype", "descriptors")
    return compile_variant(tile=tile_of(variant), **{key: variant[key] for key in keys})


def tile_of(variant: Mapping[str, Any]) -> Tile:
    """Return the tile of a variant, or of a row of figures."""
    return Tile(*(variant[name] for name in ("rows", "columns", "warps", "stages", "maxnreg")))


def with_figures(variant: dict[str, Any]) -> dict[str, Any]:
    """Return a variant of `shipped_variants` with its figures, and on sm_90 for 16 bits with the rate predicted."""
    compiled = compile_shipped(variant)
    row = variant | compiled.figures
    is_known = variant["architecture"] == predict.ARCHITECTURE and variant["dtype"] in predict.DTYPES
    if is_known and variant["kernel"] in predict.PRODUCTS:
        row["limits"] = limits_of(compiled, variant["kernel"], variant["head_dim"], tile_of(row))
    return row


def limits_of(compiled: Compiled, kernel: str, head_dim: int, tile: Tile) -> dict[str, Any]:
    """Return what limits a kernel for 16 bits on sm_90, as `predict.Limits.figures` gives it; each rate means ±15 %."""
    return predict.limits(sass.parse(compiled.sass), kernel, head_dim, tile, programs=compiled.programs).figures
