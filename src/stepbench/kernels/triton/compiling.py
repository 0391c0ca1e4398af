"""Compile one kernel for any GPU, without one, and read what came out: registers, memory, matrix instructions.

Triton compiles for any target, and the `ptxas` and `cuobjdump` that its package carries assemble and read the result.
What to look for:

- Spills: a value without a register goes to memory and back in the inner loop.
- Registers and shared memory decide how many programs a multiprocessor holds at a time. Beside a second one, or with
  two groups of four warps in one, exponentials of one run while the other keeps the tensor cores busy.
- Matrix instructions: `wgmma` on sm_90, `mma` on sm_80 and consumer GPUs, `tcgen05` on sm_100. A kernel without them is
  on the slow path. On sm_75 all are: Triton does not compile for its tensor cores.
- Serialized: ptxas may give up on overlapping wgmma instructions and wait after each of them, which it only tells in a
  note. By itself that is no fault: such a kernel can still be the fastest where several programs hide its waiting.
"""

import functools
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stepbench import versions
from stepbench.kernels.triton import backward, forward, single
from stepbench.kernels.triton.launch import is_interpreted
from stepbench.kernels.triton.tiles import CHUNK, Tile, slice_of, split_head_dim

# Bytes of shared memory that a program may ask for, and that a multiprocessor has, and warps of a multiprocessor: CUDA
# C++ programming guide, technical specifications per compute capability.
SHARED_BYTES = {
    "sm_75": (65_536, 65_536),
    "sm_80": (166_912, 167_936),
    "sm_86": (101_376, 102_400),
    "sm_89": (101_376, 102_400),
    "sm_90": (232_448, 233_472),
    "sm_100": (232_448, 233_472),
    "sm_103": (232_448, 233_472),
    "sm_120": (101_376, 102_400),
    "sm_121": (101_376, 102_400),
}
_WARPS = {"sm_75": 32, "sm_86": 48, "sm_89": 48, "sm_120": 48, "sm_121": 48}  # of the others: 64
TENSOR_MEMORY_COLUMNS = (
    512  # of sm_100, per multiprocessor; taken as a power of two, at least 32: PTX ISA, tcgen05.alloc
)
FUNCTIONS = {
    "forward": forward.forward,
    "forward_one_loop": forward.forward,
    "row_statistics": backward.row_statistics,
    "backward_keys": backward.backward_keys,
    "backward_queries": backward.backward_queries,
    "backward_fused": backward.backward_keys,
    "backward_reduced": backward.backward_keys,
}
SINGLE_FUNCTIONS = {
    "forward": single.forward,
    "row_statistics": backward.row_statistics,
    "backward_keys": single.backward_keys,
    "backward_queries": single.backward_queries,
    "backward_fused": single.backward_keys,
}
_TYPES = {"bfloat16": ("bf16", tl.bfloat16), "float16": ("fp16", tl.float16), "float32": ("fp32", tl.float32)}
_MATRIX_INSTRUCTIONS = {"wgmma": r"\bwgmma\.mma_async", "mma": r"\bmma\.sync", "tcgen05": r"\btcgen05\.mma\b"}
_ALIGNED = [["tt.divisibility", 16]]


@dataclass(frozen=True)
class Compiled:
    """What one variant compiled to.

    Attributes:
        registers: per thread.
        spill_bytes: likewise.
        shared_bytes: per program.
        programs: at a time per multiprocessor.
        instructions: of the tensor cores, name to number, in the whole kernel.
        serialized: whether ptxas waits after each wgmma.
        sass: what cuobjdump prints.
    """

    registers: int
    spill_bytes: int
    shared_bytes: int
    programs: int
    instructions: dict[str, int]
    serialized: bool
    sass: str

    @property
    def figures(self) -> dict[str, Any]:
        """Return all but the SASS."""
        return {name: value for name, value in vars(self).items() if name != "sass"}


def compile_variant(
    *, kernel: str, architecture: str, head_dim: int, dtype: str, tile: Tile, descriptors: bool, grouped: bool = False
) -> Compiled:
    """Compile one variant and read its figures.

    Args:
        kernel: a key of `FUNCTIONS`.
        architecture: a key of `SHARED_BYTES`.
        head_dim: D.
        dtype: "bfloat16", "float16" or "float32".
        tile: rows, columns, warps, stages and cap on registers.
        descriptors: whether tiles are loaded through tensor descriptors.
        grouped: whether several heads share a key head.

    Raises:
        RuntimeError: Triton is interpreting (TRITON_INTERPRET=1), so there is nothing to compile; or the variant asks
            for more tensor memory than sm_100 has, for which Triton compiles a kernel that does nothing but trap.
    """
    if is_interpreted():
        raise RuntimeError("Triton must compile, got TRITON_INTERPRET in the environment")
    source = kernel_source(kernel, head_dim, dtype, tile, descriptors=descriptors, grouped=grouped)
    return compile_source(source, architecture, tile.options, name=f"{kernel} at head dim {head_dim}, {tile}")


def compile_source(source: ASTSource, architecture: str, options: dict[str, int], *, name: str) -> Compiled:
    """Compile any kernel and read its figures.

    Args:
        source: the kernel, its types and its constants.
        architecture: a key of `SHARED_BYTES`.
        options: of the compiler, `num_warps` among them.
        name: of the variant, for the message.

    Raises:
        RuntimeError: it asks for more tensor memory than sm_100 has.
    """
    target = GPUTarget("cuda", int(architecture.removeprefix("sm_")), 32)
    compiled = triton.compile(source, target=target, options=options | versions.LAUNCH_OPTIONS)
    columns = versions.tensor_memory_columns(compiled)
    if columns > TENSOR_MEMORY_COLUMNS:
        raise RuntimeError(f"{name} must fit {TENSOR_MEMORY_COLUMNS} columns of tensor memory, got {columns}")
    report = _disassemble(compiled.asm["cubin"])
    found = re.search(r"REG:(\d+) STACK:(\d+)", report)
    if found is None:
        raise RuntimeError(f"cuobjdump must report REG and STACK, got {report[:200]!r}")
    registers, shared_bytes = int(found[1]), int(compiled.metadata.shared)
    instructions = {name: len(re.findall(sign, compiled.asm["ptx"])) for name, sign in _MATRIX_INSTRUCTIONS.items()}
    waits = len(re.findall(r"WARPGROUP\.DEPBAR", report))
    return Compiled(
        registers=registers,
        spill_bytes=int(found[2]),
        shared_bytes=shared_bytes,
        programs=programs_at_a_time(architecture, registers, options["num_warps"], shared_bytes, columns),
        instructions={name: count for name, count in instructions.items() if count},
        # An overlapped kernel waits two or three times per loop, a serialized one once per instruction.
        serialized=waits > 0 and 2 * waits >= len(re.findall(r"\bHGMMA", report)),
        sass=report,
    )


def kernel_source(
    kernel: str, head_dim: int, dtype: str, tile: Tile, *, descriptors: bool, grouped: bool = False
) -> ASTSource:
    """Describe one variant of a kernel exactly as a launch on aligned tensors specialises it.

    With `grouped` several heads share a key head; otherwise H = Hkv.
    """
    short, triton_dtype = _TYPES[dtype]
    main, tail = split_head_dim(head_dim)
    function = (SINGLE_FUNCTIONS if dtype == "float32" else FUNCTIONS)[kernel]
    constants: dict[str, Any] = {
        "HEAD_DIM": head_dim, "MAIN": main, "TAIL": tail, "B_R": tile.rows, "B_C": tile.columns, "CHUNK": CHUNK,
        "WIDTH": slice_of(head_dim), "PRECISION": "tf32x3", "GROUPED": grouped,
        "FUSED": kernel in ("backward_fused", "backward_reduced"), "REDUCED": kernel == "backward_reduced",
        "ONE_LOOP": kernel == "forward_one_loop",
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
        elif name == "dq" and kernel == "backward_reduced":
            signature[name] = f"tensordesc<fp32[1,1,{tile.rows},{main}]>"
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


def programs_at_a_time(architecture: str, registers: int, warps: int, shared_bytes: int, columns: int) -> int:
    """Return how many programs fit a multiprocessor: 65 536 registers, 256 at a time per warp; its warps and memory.

    Args:
        architecture: a key of `SHARED_BYTES`.
        registers: per thread.
        warps: of a program.
        shared_bytes: of a program; the system takes another 1024, which sm_75 does not have.
        columns: of tensor memory.
    """
    per_program = warps * -(-registers * 32 // 256) * 256
    by_memory = SHARED_BYTES[architecture][1] // max(shared_bytes + (0 if architecture == "sm_75" else 1024), 1)
    by_tensor_memory = TENSOR_MEMORY_COLUMNS // max(1 << (columns - 1).bit_length(), 32) if columns else 64
    return min(65_536 // per_program, by_memory, by_tensor_memory, _WARPS.get(architecture, 64) // warps)


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
