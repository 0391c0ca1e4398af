"""What a kernel costs before it ever runs: registers, spills, shared memory, and its matrix instructions.

No GPU is needed. Triton compiles for any target, and the `ptxas` and `cuobjdump` that its package carries assemble and
read the result. What to look for:

- Spills: a value without a register goes to memory and back in the inner loop. None may, on sm_80 and sm_90.
- Registers and shared memory decide how many programs a multiprocessor holds at a time. Beside a second one, or with
  two groups of four warps in one, exponentials of one run while the other keeps the tensor cores busy.
- Matrix instructions: `wgmma` on sm_90, `mma` on sm_80, `tcgen05` on sm_100. A kernel without them is on the slow path.
- Serialized: ptxas may give up on overlapping wgmma instructions and wait after each of them, which it only tells in a
  note. 128 × 128 tiles on 4 warps at head dim 64 are an example: no spill, 255 registers, and slow.

What the shipped variants cost is kept in figures.json, so that it can be shown without compiling anything. The file
holds a hash of what it was compiled from, and is refused once that has changed.
"""

import ast
import datetime
import functools
import hashlib
import inspect
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stepbench import versions
from stepbench.kernels.triton import backward, forward, primitives, single
from stepbench.kernels.triton.launch import is_interpreted
from stepbench.kernels.triton.tiles import CHUNK, KERNELS, Tile, read_table, slice_of, split_head_dim, statistics_rows

FIGURES = Path(__file__).with_name("figures.json")
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
# Bytes of shared memory that a program may ask for, and that a multiprocessor has: CUDA C++ programming guide,
# technical specifications per compute capability.
SHARED_BYTES = {
    "sm_80": (166_912, 167_936),
    "sm_89": (101_376, 102_400),
    "sm_90": (232_448, 233_472),
    "sm_100": (232_448, 233_472),
}
TENSOR_MEMORY_COLUMNS = (
    512  # of sm_100, per multiprocessor; taken as a power of two, at least 32: PTX ISA, tcgen05.alloc
)
_FUNCTIONS = {
    "forward": forward.forward,
    "row_statistics": backward.row_statistics,
    "backward_keys": backward.backward_keys,
    "backward_queries": backward.backward_queries,
    "backward_fused": backward.backward_keys,
}
_SINGLE_FUNCTIONS = {
    "forward": single.forward,
    "row_statistics": backward.row_statistics,
    "backward_keys": single.backward_keys,
    "backward_queries": single.backward_queries,
    "backward_fused": single.backward_keys,
}
_TYPES = {"bfloat16": ("bf16", tl.bfloat16), "float16": ("fp16", tl.float16), "float32": ("fp32", tl.float32)}
_MATRIX_INSTRUCTIONS = {"wgmma": r"\bwgmma\.mma_async", "mma": r"\bmma\.sync", "tcgen05": r"\btcgen05\.mma\b"}
_ALIGNED = [["tt.divisibility", 16]]


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
        stages, and the figures of `compile_figures`.
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


def read_figures(path: Path = FIGURES) -> dict[str, Any]:
    """Return the kept figures: triton and date of their making, digest, and rows as `table` returns them.

    Raises:
        ValueError: the tiles of tiles.json or the kernels have changed since.
    """
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if figures["digest"] != (digest := figures_digest()):
        raise ValueError(
            f"{path.name} must be of today's kernels and tile shapes, digest {digest}, got {figures['digest']}: "
            "`python -m stepbench kernels --compile` makes it anew"
        )
    return figures


def write_figures(rows: Sequence[Mapping[str, Any]], path: Path = FIGURES) -> None:
    """Keep what `table` has compiled for every shipped variant of `ARCHITECTURES`, one row a line."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    head = {"triton": triton.__version__, "date": today, "digest": figures_digest()}
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    body = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in rows)
    path.write_text("\n".join(["{", *lines, '  "rows": [', body, "  ]", "}", ""]), encoding="utf-8")


def figures_digest() -> str:
    """Return a short hash of the shipped variants and of the kernels' code, without its docstrings and comments."""
    variants = [variant for architecture in ARCHITECTURES for variant in shipped_variants(architecture)]
    parts = (forward, backward, single, primitives, kernel_source)
    code = [_code_of(inspect.getsource(part)) for part in parts]
    return hashlib.sha256(json.dumps([variants, code], sort_keys=True).encode()).hexdigest()[:16]


def _code_of(source: str) -> str:
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.unparse(tree)  # unlike a dump, the same text in every version of Python


def shipped_variants(architecture: str) -> Iterator[dict[str, Any]]:
    """Yield what tiles.json says for one architecture, once for each kernel that is compiled, without its figures.

    Causality is no compile-time constant, so two rows of the table that differ in nothing else are one variant.
    """
    section = read_table()[architecture]
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in section["rows"]:
        rows = statistics_rows(row["head_dim"])
        shapes = {name: row[name] for name in KERNELS} | {"row_statistics": [rows, rows, 4, 1]}
        for kernel, shape in shapes.items():
            if shape is None:
                continue
            causal = "yes" if row["causal"] else "no"
            variant = found.setdefault(
                (kernel, row["head_dim"], row["dtype"], *shape),
                {
                    "kernel": kernel,
                    "architecture": architecture,
                    "head_dim": row["head_dim"],
                    "dtype": row["dtype"],
                    "causal": causal,
                    "tile": str(Tile(*shape)),
                    **dict(zip(("rows", "columns", "warps", "stages"), shape, strict=True)),
                    "descriptors": section["descriptors"] and kernel in KERNELS and row["dtype"] != "float32",
                },
            )
            if variant["causal"] != causal:
                variant["causal"] = "both"
    yield from found.values()


def with_figures(variant: dict[str, Any]) -> dict[str, Any]:
    """Return a variant of `shipped_variants` with its figures."""
    tile = Tile(*(variant[name] for name in ("rows", "columns", "warps", "stages")))
    keys = ("kernel", "architecture", "head_dim", "dtype", "descriptors")
    return variant | compile_figures(tile=tile, **{key: variant[key] for key in keys})


def compile_figures(
    *, kernel: str, architecture: str, head_dim: int, dtype: str, tile: Tile, descriptors: bool
) -> dict[str, Any]:
    """Compile one variant and read its figures.

    Args:
        kernel: one of `tiles.KERNELS`, or row_statistics.
        architecture: a key of `SHARED_BYTES`.
        head_dim: D.
        dtype: "bfloat16", "float16" or "float32".
        tile: rows, columns, warps and stages.
        descriptors: whether tiles are loaded through tensor descriptors.

    Returns:
        registers and spill_bytes per thread, shared_bytes per program, programs at a time per multiprocessor,
        instructions (name to number, in the whole kernel) and serialized.

    Raises:
        RuntimeError: Triton is interpreting (TRITON_INTERPRET=1), so there is nothing to compile; or the variant asks
            for more tensor memory than sm_100 has, for which Triton compiles a kernel that does nothing but trap.
    """
    if is_interpreted():
        raise RuntimeError("Triton must compile, got TRITON_INTERPRET in the environment")
    compiled = triton.compile(
        kernel_source(kernel, head_dim, dtype, tile, descriptors=descriptors),
        target=GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32),
        options={"num_warps": tile.warps, "num_stages": tile.stages, **versions.LAUNCH_OPTIONS},
    )
    columns = versions.tensor_memory_columns(compiled)
    if columns > TENSOR_MEMORY_COLUMNS:
        raise RuntimeError(
            f"{kernel} at head dim {head_dim}, {tile} must fit {TENSOR_MEMORY_COLUMNS} columns of tensor memory, "
            f"got {columns}"
        )
    report = _disassemble(compiled.asm["cubin"])
    found = re.search(r"REG:(\d+) STACK:(\d+)", report)
    if found is None:
        raise RuntimeError(f"cuobjdump must report REG and STACK, got {report[:200]!r}")
    registers, shared_bytes = int(found[1]), int(compiled.metadata.shared)
    instructions = {name: len(re.findall(sign, compiled.asm["ptx"])) for name, sign in _MATRIX_INSTRUCTIONS.items()}
    waits = len(re.findall(r"WARPGROUP\.DEPBAR", report))
    return {
        "registers": registers,
        "spill_bytes": int(found[2]),
        "shared_bytes": shared_bytes,
        "programs": _programs(architecture, registers, tile.warps, shared_bytes, columns),
        "instructions": {name: count for name, count in instructions.items() if count},
        # An overlapped kernel waits two or three times per loop, a serialized one once per instruction.
        "serialized": waits > 0 and 2 * waits >= len(re.findall(r"\bHGMMA", report)),
    }


def kernel_source(kernel: str, head_dim: int, dtype: str, tile: Tile, *, descriptors: bool) -> ASTSource:
    """Describe one variant of a kernel exactly as a launch on aligned tensors with H = Hkv specialises it."""
    short, triton_dtype = _TYPES[dtype]
    main, tail = split_head_dim(head_dim)
    function = (_SINGLE_FUNCTIONS if dtype == "float32" else _FUNCTIONS)[kernel]
    constants: dict[str, Any] = {
        "HEAD_DIM": head_dim, "MAIN": main, "TAIL": tail, "B_R": tile.rows, "B_C": tile.columns, "CHUNK": CHUNK,
        "WIDTH": slice_of(head_dim), "PRECISION": "tf32x3", "GROUPED": False, "FUSED": kernel == "backward_fused",
        "DESCRIPTORS": descriptors, "DTYPE": triton_dtype, "UPCAST": False, "dlse": None,
    }  # fmt: skip
    if kernel == "backward_keys":
        constants["dq"] = None
    if tail == 0:
        constants |= dict.fromkeys(("q_tail", "k_tail", "v_tail", "do_tail"))
    signature: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], list[list[object]]] = {}
    for index, name in enumerate(function.arg_names):
        tensor = name.removesuffix("_tail")
        if name in constants:
            signature[name] = "constexpr"
        elif descriptors and tensor in ("q", "k", "v", "do"):
            rows = tile.rows if tensor in ("q", "do") else tile.columns
            signature[name] = f"tensordesc<{short}[1,1,{rows},{main if name == tensor else tail}]>"
        elif name.endswith("_strides"):
            signature[name] = ("i32", "i32", "i32")
            attributes |= {(index, dim): _ALIGNED for dim in range(3)}
        elif tensor in ("q", "k", "v", "o", "do", "dq", "dk", "dv", "lse", "lse_2", "delta"):
            is_single = "lse" in name or name == "delta" or (name == "dq" and kernel == "backward_fused")
            signature[name] = "*fp32" if is_single else f"*{short}"
            attributes[index,] = _ALIGNED
        else:
            signature[name] = "fp32" if "scale" in name else "i32"
            if name == "head_dim":
                attributes[index,] = _ALIGNED
    return ASTSource(function, signature, {n: v for n, v in constants.items() if n in signature}, attributes)


def _programs(architecture: str, registers: int, warps: int, shared_bytes: int, columns: int) -> int:
    """Return how many programs fit a multiprocessor: 65 536 registers, 256 at a time per warp; 64 warps, or 48."""
    per_program = warps * -(-registers * 32 // 256) * 256
    by_memory = SHARED_BYTES[architecture][1] // (shared_bytes + 1024)
    by_tensor_memory = TENSOR_MEMORY_COLUMNS // max(1 << (columns - 1).bit_length(), 32) if columns else 64
    return min(65_536 // per_program, by_memory, by_tensor_memory, (48 if architecture == "sm_89" else 64) // warps)


def _disassemble(cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [_cuobjdump(), "--dump-resource-usage", "--dump-sass", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@functools.cache
def _cuobjdump() -> str:
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not path.is_file():
        raise FileNotFoundError(f"the triton package must carry cuobjdump, got nothing at {path}")
    return str(path)
