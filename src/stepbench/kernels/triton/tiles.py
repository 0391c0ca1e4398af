"""Which tile shape a kernel gets: a table per architecture, head dim, dtype and causality, kept as data in tiles.json.

The standard library alone, so that tables can be read, compared and shown anywhere. No measurement ever searches for
a tile shape: `python -m stepbench tune` does, on a GPU, and rewrites the table of that architecture with machine and
date.
"""

import importlib.metadata
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("tiles.json")
MAX_FUSED_HEAD_DIM = 128  # of `backward_fused` for 16 bits: beyond, every tile spills
MAX_TURING_HEAD_DIM = 128  # on sm_75, where every larger tile spills
MOST_ROWS = 256  # of a tile, of queries or of keys
CHUNK = 32  # columns of the head dim that the float32 kernels take at a time
KERNELS = ("forward", "backward_keys", "backward_queries", "backward_fused", "backward_reduced")


@dataclass(frozen=True)
class Tile:
    """The shape in which one program of one kernel works.

    Attributes:
        rows: B_r, queries of a tile.
        columns: B_c, keys of a tile.
        warps: of 32 threads; 4 of them issue a wgmma together.
        stages: tiles in flight between global and shared memory.
        maxnreg: the most registers that a thread may use, so that more programs share a multiprocessor; None for as
            many as the compiler likes.
    """

    rows: int
    columns: int
    warps: int
    stages: int
    maxnreg: int | None = None

    def __str__(self) -> str:
        cap = "" if self.maxnreg is None else f", at most {self.maxnreg} registers"
        return f"{self.rows}×{self.columns}, {self.warps} warps, {self.stages} stages{cap}"

    @property
    def shape(self) -> list[int]:
        """Return it as the table holds it: four numbers, or five with a cap on registers."""
        shape = [self.rows, self.columns, self.warps, self.stages]
        return shape if self.maxnreg is None else [*shape, self.maxnreg]

    @property
    def options(self) -> dict[str, int]:
        """Return the compiler's options."""
        options = {"num_warps": self.warps, "num_stages": self.stages}
        return options if self.maxnreg is None else options | {"maxnreg": self.maxnreg}


@dataclass(frozen=True)
class Plan:
    """The tiles of all kernels for one problem, how they load, and which variant of a kernel runs.

    Attributes:
        backward_fused: None where no tile keeps its five products in registers.
        descriptors: whether tiles are loaded through tensor descriptors (TMA) where the tensors allow it.
        backward_reduced: of the fused kernel that adds to dq through a descriptor; None where there is no such thing.
        one_loop: whether the forward kernel takes masked and other tiles in one loop.
        reduced: whether the backward kernel with five products is `backward_reduced`.
    """

    forward: Tile
    backward_keys: Tile
    backward_queries: Tile
    backward_fused: Tile | None
    descriptors: bool
    backward_reduced: Tile | None = None
    one_loop: bool = False
    reduced: bool = False

    def to_text(self) -> str:
        """Return the plan as one line of JSON, which can pass through torch's operators."""
        return json.dumps(asdict(self))

    @staticmethod
    @cache
    def from_text(text: str) -> "Plan":
        """Read what `to_text` wrote."""
        fields = json.loads(text)
        tiles = {name: fields[name] and Tile(**fields[name]) for name in KERNELS}
        return Plan(**{**fields, **tiles})


def split_head_dim(head_dim: int) -> tuple[int, int]:
    """Cut a head dim into one or two powers of two, each at least 16: 128 → (128, 0), 80 → (64, 16), 96 → (64, 32).

    Where two would be no smaller than the next power of two, the head dim is padded to it: 112 → (128, 0). The second
    is at least a quarter of the first, 144 → (128, 32), because of a 16 beside a 128 ptxas spills with most tiles.
    """
    whole = max(_next_power_of_two(head_dim), 16)
    main = whole // 2
    tail = max(_next_power_of_two(head_dim - main), main // 4, 16)
    return (whole, 0) if head_dim == whole or tail >= main else (main, tail)


def _next_power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def slice_of(head_dim: int) -> int:
    """Return how many columns of an output one program of the float32 kernels makes."""
    return 32 if head_dim <= 32 else 64


def statistics_rows(head_dim: int) -> int:
    """Return how many rows a program of `row_statistics` takes: two blocks of 32 × 128 fit 4 warps' registers."""
    return 32 if head_dim <= 128 else 16


def triton_series() -> str | None:
    """Return the installed Triton's major and minor version, such as "3.7"; None without Triton."""
    try:
        return ".".join(importlib.metadata.version("triton").split(".")[:2])
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def read_table(path: Path = TABLE) -> dict[str, Any]:
    """Return the table as it is stored: architecture to machine, date, origin, descriptors and rows."""
    with path.open(encoding="utf-8") as file:
        table: dict[str, Any] = json.load(file)
    return table


@cache
def plan_for(
    architecture: str,
    head_dim: int,
    dtype: str,
    is_causal: bool,
    path: Path = TABLE,
    series: str | None = None,
    *,
    grouped: bool = False,
) -> Plan:
    """Return the tiles for a problem: of the smallest head dim in the table that is not smaller.

    The float32 kernels depend on the width of the slices that they make, not on the head dim: `slice_of` is looked up.
    Where several heads share a key head, a kernel's loop over them costs registers; the tiles in `grouped` of a row,
    for kernels that would spill, then take the place of its others.

    Args:
        architecture: a key of the table.
        head_dim: D.
        dtype: such as "bfloat16".
        is_causal: whether the causal mask applies.
        path: the table.
        series: of Triton, such as "3.6", by default of the installed one.
        grouped: whether several heads share a key head.

    Raises:
        ValueError: the table has no row for it.
    """
    section = read_table(path).get(architecture, {"rows": []})
    rows = rows_for(section["rows"], series or triton_series())
    rows = [row for row in rows if row["dtype"] == dtype and row["causal"] == is_causal]
    width = slice_of(head_dim) if dtype == "float32" else head_dim
    fitting = [row for row in rows if row["head_dim"] >= width]
    if not fitting:
        raise ValueError(
            f"tiles.json must have a row for {architecture}, {dtype}, causal={is_causal} and head dim {head_dim}, got "
            f"head dims {sorted(row['head_dim'] for row in rows)}"
        )
    row = min(fitting, key=lambda row: row["head_dim"])
    shapes = {**row, **(row.get("grouped", {}) if grouped else {})}
    tiles: dict[str, Any] = {kernel: (shape := shapes.get(kernel)) and Tile(*shape) for kernel in KERNELS}
    return Plan(descriptors=section["descriptors"], **tiles)


def rows_for(rows: Sequence[dict[str, Any]], series: str | None) -> list[dict[str, Any]]:
    """Return the rows that a version of Triton uses: those that name it, in the place of those that name none.

    Compilers differ in the registers that a tile takes, so that the best tile of one may spill in another.
    """
    own = {row_key(row) for row in rows if row.get("triton") == series}
    return [row for row in rows if row.get("triton") == series or ("triton" not in row and row_key(row) not in own)]


def row_key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what problem a row of the table is for."""
    return row["head_dim"], row["dtype"], row["causal"]


def write_table(table: Mapping[str, Any], path: Path = TABLE) -> None:
    """Write a table, one row a line, so that a difference of two tables can be read; whole or not at all."""
    lines = ["{"]
    for i, (architecture, section) in enumerate(sorted(table.items())):
        head = {key: value for key, value in section.items() if key != "rows"}
        lines.append(f"  {json.dumps(architecture)}: {{")
        lines += [f"    {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in head.items()]
        rows = sorted(
            section["rows"], key=lambda row: (row["dtype"], row["head_dim"], row["causal"], row.get("triton", ""))
        )
        lines.append('    "rows": [')
        lines += [f"      {json.dumps(row)}{',' if row is not rows[-1] else ''}" for row in rows]
        lines += ["    ]", "  }," if i + 1 < len(table) else "  }"]
    fresh = path.with_suffix(f".{os.getpid()}.tmp")
    fresh.write_text("\n".join([*lines, "}", ""]), encoding="utf-8")
    fresh.replace(path)
    read_table.cache_clear()
    plan_for.cache_clear()
