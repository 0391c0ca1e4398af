"""What is known, and what is assumed, about one multiprocessor of an H100 (sm_90): throughputs, latencies, sizes.

Cycles are those of the multiprocessor's clock. Throughputs are per quarter (SMSP), of which a multiprocessor has four:
every warp lives on one quarter, and all quarters are taken to do the same. Sources, by letter:

    G  CUDA C++ programming guide, throughput of native arithmetic instructions, compute capability 9.0
    M  microbenchmarks: Luo et al., Benchmarking and Dissecting the Nvidia Hopper GPU Architecture (2024); Jia et al.,
       Dissecting the NVIDIA Volta GPU Architecture via Microbenchmarking (2018). They differ by tens of percent.
    F  fitted to published rates of attention kernels on an H100 SXM
"""

from dataclasses import dataclass

MULTIPROCESSORS = 132  # H100 SXM
CLOCK_HZ = 1.655e9  # F: what such kernels run at under the power limit; the boost clock is 1.83e9 to 1.98e9
LAUNCH_CYCLES = 2500  # F: from the launch to the first program
CACHE_BYTES = 25 * 2**20  # half of the second-level cache, as `launch` takes it
BAND = 0.15  # differences below this mean nothing: one standard deviation of the error is 7 %, the worst point 12 %

REGISTERS, REGISTER_UNIT = 65_536, 256  # of a multiprocessor, and what a warp takes at a time: G
SHARED_BYTES, RESERVED_BYTES = 233_472, 1024  # of a multiprocessor, and of each program for the system: G
WARPS = 64  # of a multiprocessor: G


@dataclass(frozen=True)
class Unit:
    """What an instruction of one kind uses: a pipe, for how many cycles, and how long after that its result is there.

    Sources: cycles G (128, 64, 32 or 16 lanes a clock and multiprocessor are 1, 2, 4 or 8 for a warp; 128 bytes a clock
    of shared memory are 4 for 32 bits of each lane), except for the uniform pipe and atomics, which are guesses;
    latency M.
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
    "spill": Unit("memory", 4, 40),
    "store": Unit("memory", 8, 20),
    "load": Unit("memory", 4, 20),
    "atomic": Unit("memory", 32, 20),
    "hmma": Unit("tensor", 8, 18),
}
RESULTS = {
    "special": 12,
    "constant": 40,
    "copy": 20,
    "expect": 24,
    "barrier object": 24,
}  # cycles, no pipe of their own


@dataclass(frozen=True)
class Machine:
    """What no throughput table says; cycles if not said otherwise.

    Attributes:
        copy: of a tile by the copy engine, from the second-level cache's last byte to the barrier's completion (M).
        first_copy: of a program's first copies (M).
        load: of an asynchronous copy by threads, likewise (M).
        drain: from a group's last product to the instruction behind its wait (F).
        product: from the issue of a product to the tensor pipe (F).
        branch: of one that is taken (M).
        barrier: from its last warp to the next instruction (M).
        phase: of a test of a copy's barrier (M).
        columns: of an m64nNk16 that the tensor cores take a cycle: 4096 dense 16-bit operations a clock (G).
        shared_bytes: of products' operands, a cycle and multiprocessor (G).
        copy_bytes: out of the second-level cache, a cycle and multiprocessor, while all of them ask (F).
        burst_bytes: the same for one copy while the others compute (F).
        slack_bytes: by which copies may run ahead of the long-run rate (F).
        queue: products that a warp may have under way before it stalls (F).
        greedy: whether the scheduler stays with a warp as long as it can (M), or takes turns.
    """

    copy: int = 700
    first_copy: int = 1000
    load: int = 525
    drain: int = 35
    product: int = 10
    branch: int = 10
    barrier: int = 22
    phase: int = 24
    columns: float = 2.0
    shared_bytes: float = 128.0
    copy_bytes: float = 28.0
    burst_bytes: float = 32.0
    slack_bytes: float = 65_536.0
    queue: int = 1
    greedy: bool = True


def programs_at_a_time(registers: int, warps: int, shared_bytes: int) -> int:
    """Return how many programs share a multiprocessor, by registers, shared memory and warps; at least one."""
    per_program = warps * -(-registers * 32 // REGISTER_UNIT) * REGISTER_UNIT
    by_memory = SHARED_BYTES // (shared_bytes + RESERVED_BYTES)
    return max(1, min(REGISTERS // per_program, by_memory, WARPS // warps))
