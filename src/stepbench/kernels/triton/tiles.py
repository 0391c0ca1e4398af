"""Which tile shape a kernel gets: a table per architecture, head dim, dtype and causality, kept as data in tiles.json.

The standard library alone, so that tables can be read, compared and shown anywhere. No measurement ever searches for
a tile shape: `python -m stepbench tune` does, on a GPU, and rewrites the table of that architecture with machine and
date.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("tiles.json")
MAX_FUSED_HEAD_DIM = 128  # of `backward_fused` for 16 bits: beyond, every tile spills
CHUNK = 32  # columns of the head dim that the float32 kernels take at a time
KERNELS = ("forward", "backward_keys", "backward_queries", "backward_fused")


@dataclass(frozen=True)
class Tile:
    """The shape in which one program of one kernel works.

    Attributes:
        rows: B_r, queries of a tile.
        columns: B_c, keys of a tile.
        warps: of 32 threads; 4 of them issue a wgmma together.
        stages: tiles in flight between global and shared memory.
    """

    rows: int
    columns: int
    warps: int
    stages: int

    def __str__(self) -> str:
        return f"{self.rows}×{self.columns}, {self.warps} warps, {self.stages} stages"


@dataclass(frozen=True)
class Plan:
    """The tiles of all kernels for one problem, and how they load.

    Attributes:
        backward_fused: None where no tile keeps its five products in registers.
        descriptors: whether tiles are loaded through tensor descriptors (TMA) where the tensors allow it.
    """

    forward: Tile
    backward_keys: Tile
    backward_queries: Tile
    backward_fused: Tile | None
    descriptors: bool

    def to_text(self) -> str:
        """Return the plan as one line of JSON, which can pass through torch's operators."""
        return json.dumps(asdict(self))

    @staticmethod
    @cache
    def from_text(text: str) -> "Plan":
        """Read what `to_text` wrote."""
        fields = json.loads(text)
        tiles = {name: fields[name] and Tile(**fields[name]) for name in KERNELS}
        return Plan(descriptors=fields["descriptors"], **tiles)


def split_head_dim(head_dim: int) -> tuple[int, int]:
    """Cut a head dim into one or two powers of two, each at least 16: 128 → (128, 0), 80 → (64, 16), 96 → (64, 32).

    Where two would be no smaller than the next power of two, the head dim is padded to it: 112 → (128, 0).
    """
    whole = max(_next_power_of_two(head_dim), 16)
    main = whole // 2
    tail = max(_next_power_of_two(head_dim - main), 16)
    return (whole, 0) if head_dim == whole or tail >= main else (main, tail)


def _next_power_of_two(n: int) -> int:
    return 1 << max(n - 1, 0).bit_length()


def slice_of(head_dim: int) -> int:
    """Return how many columns of an output one program of the float32 kernels makes."""
    return 32 if head_dim <= 32 else 64


def statistics_rows(head_dim: int) -> int:
    """Return how many rows a program of `row_statistics` takes: two blocks of 32 × 128 fit 4 warps' registers."""
    return 32 if head_dim <= 128 else 16


def architecture_of(capability: tuple[int, int]) -> str:
    """Return the architecture whose table a device uses.

    Consumer GPUs (8.6, 8.9, 12.x) have 99 KiB of shared memory per program where their data-center siblings have 163
    and 227, so they share a table of their own.
    """
    if capability in ((8, 6), (8, 7), (8, 9)) or capability[0] >= 12:
        return "sm_89"
    return {8: "sm_80", 9: "sm_90"}.get(capability[0], "sm_100")


@cache
def read_table(path: Path = TABLE) -> dict[str, Any]:
    """Return the table as it is stored: architecture to machine, date, origin, descriptors and rows."""
    with path.open(encoding="utf-8") as file:
        table: dict[str, Any] = json.load(file)
    return table


@cache
def plan_for(architecture: str, head_dim: int, dtype: str, is_causal: bool, path: Path = TABLE) -> Plan:
    """Return the tiles for a problem: of the smallest head dim in the table that is not smaller.

    The float32 kernels depend on the width of the slices that they make, not on the head dim: `slice_of` is looked up.

    Raises:
        ValueError: the table has no row for it.
    """
    section = read_table(path).get(architecture, {"rows": []})
    rows = [row for row in section["rows"] if row["dtype"] == dtype and row["causal"] == is_causal]
    width = slice_of(head_dim) if dtype == "float32" else head_dim
    fitting = [row for row in rows if row["head_dim"] >= width]
    if not fitting:
        raise ValueError(
            f"tiles.json must have a row for {architecture}, {dtype}, causal={is_causal} and head dim {head_dim}, got "
            f"head dims {sorted(row['head_dim'] for row in rows)}"
        )
    row = min(fitting, key=lambda row: row["head_dim"])
    tiles = {kernel: row[kernel] and Tile(*row[kernel]) for kernel in KERNELS}
    return Plan(descriptors=section["descriptors"], **tiles)


def write_table(table: Mapping[str, Any], path: Path = TABLE) -> None:
    """Write a table, one row a line, so that a difference of two tables can be read."""
    lines = ["{"]
    for i, (architecture, section) in enumerate(sorted(table.items())):
        head = {key: value for key, value in section.items() if key != "rows"}
        lines.append(f"  {json.dumps(architecture)}: {{")
        lines += [f"    {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}," for key, value in head.items()]
        rows = sorted(section["rows"], key=lambda row: (row["dtype"], row["head_dim"], row["causal"]))
        lines.append('    "rows": [')
        lines += [f"      {json.dumps(row)}{',' if row is not rows[-1] else ''}" for row in rows]
        lines += ["    ]", "  }," if i + 1 < len(table) else "  }"]
    path.write_text("\n".join([*lines, "}", ""]), encoding="utf-8")
    read_table.cache_clear()
    plan_for.cache_clear()


def table_digest(architecture: str, path: Path = TABLE) -> str:
    """Return a short hash of one architecture's table, for a record's fingerprint: other tiles are another number."""
    section = read_table(path).get(architecture, {})
    return hashlib.sha256(json.dumps(section, sort_keys=True).encode()).hexdigest()[:16]
