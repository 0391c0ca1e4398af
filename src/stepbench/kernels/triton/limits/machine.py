"""What is known, and what is assumed, about one multiprocessor of an H100 (sm_90): throughputs, latencies, sizes.

Cycles are those of the multiprocessor's clock. Throughputs are per quarter (SMSP), of which a multiprocessor has four:
every warp lives on one quarter, and all quarters are taken to do the same. Sources, by letter:

    G  CUDA C++ programming guide, throughput of native arithmetic instructions, compute capability 9.0
    M  microbenchmarks: Luo et al., Benchmarking and Dissecting the Nvidia Hopper GPU Architecture (2024); Jia et al.,
       Dissecting the NVIDIA Volta GPU Architecture via Microbenchmarking (2018). They differ by tens of percent.
    F  fitted to measured rates: fitted.json says which. `stepbench kernels --refit` rewrites that file.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FITTED = Path(__file__).with_name("fitted.json")
MULTIPROCESSORS = 132  # H100 SXM, H200
CACHE_BYTES = 25 * 2**20  # half of the second-level cache, as `launch` takes it


@dataclass(frozen=True)
class Unit:
    """What an instruction of one kind uses: a pipe, for how many cycles, and how long after that its result is there.

    Sources: cycles G (128, 64, 32 or 16 lanes a clock and multiprocessor are 1, 2, 4 or 8 for a warp; 128 bytes a clock
    of shared memory are 4 for 32 bits of each lane), except for the uniform pipe, which is a guess, and atomics: a
    store's, with which FlashAttention-2's published backward passes come out within 8 % (with 32, a guess, 20 % too
    low); latency M.
    """

    pipe: str
    cycles: int
    latency: int


UNITS = {
    "fma": Unit("fma", 1, 4),
    "imad": Unit("fma half", 2, 4),
    "alu": Unit("alu", 2, 5),
    "xu": Unit("xu", 8, 18),
    "uniform": Unit("uniform", 2, 8),
    "shuffle": Unit("memory", 4, 23),
    "shared": Unit("memory", 4, 30),
    "shared matrix": Unit("memory", 4, 33),
    "global": Unit("memory", 4, 525),
    "store": Unit("memory", 8, 20),
    "load": Unit("memory", 4, 20),
    "atomic": Unit("memory", 8, 20),
    "hmma": Unit("tensor", 8, 18),
}
# Cycles until the result of what has no pipe of its own.
RESULTS = {"special": 12, "constant": 40, "copy": 20, "expect": 24, "barrier object": 24}


def _fitted() -> dict[str, Any]:
    return dict(json.loads(FITTED.read_text(encoding="utf-8"))["constants"])


_FITTED = _fitted()


@dataclass(frozen=True)
class Machine:
    """What no throughput table says; cycles if not said otherwise. What fitted.json holds comes from there.

    Attributes:
        clock_hz: what such kernels run at under the power limit; the boost clock is 1.83e9 to 1.98e9 (F).
        launch_cycles: from the launch to the first program (F).
        drain: from a group's last product to the instruction behind its wait (F).
        copy: of a tile by the copy engine, from the second-level cache's last byte to the barrier's completion (F).
        copy_bytes: out of the second-level cache, a cycle and multiprocessor, while all of them ask (F).
        burst_bytes: the same for one copy while the others compute (F).
        slack_bytes: by which copies may run ahead of the long-run rate (F, but not refitted).
        first_copy: of a program's first copies (M).
        load: of an asynchronous copy by threads, likewise (M).
        product: from the issue of a product to the tensor pipe (F, but not refitted: a few cycles of hundreds).
        branch: of one that is taken (M).
        barrier: from its last warp to the next instruction (M).
        phase: of a test of a copy's barrier (M).
        columns: of an m64nNk16 that the tensor cores take a cycle: 4096 dense 16-bit operations a clock (G).
        shared_bytes: of products' operands, a cycle and multiprocessor (G).
    """

    clock_hz: float = _FITTED["clock_hz"]
    launch_cycles: float = _FITTED["launch_cycles"]
    drain: float = _FITTED["drain"]
    copy: float = _FITTED["copy"]
    copy_bytes: float = _FITTED["copy_bytes"]
    burst_bytes: float = _FITTED["burst_bytes"]
    slack_bytes: float = 65_536.0
    first_copy: float = 1000.0
    load: float = 525.0
    product: float = 10.0
    branch: float = 10.0
    barrier: float = 22.0
    phase: float = 24.0
    columns: float = 2.0
    shared_bytes: float = 128.0
