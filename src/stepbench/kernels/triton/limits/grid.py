"""From the rounds of one multiprocessor to a launch: how fast programs run side by side, and how they fill the GPU."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stepbench.kernels.triton.limits.machine import CACHE_BYTES, LAUNCH_CYCLES, MULTIPROCESSORS, Machine
from stepbench.kernels.triton.limits.replay import Quarter, Replay
from stepbench.kernels.triton.limits.sass import Instruction, loops, mask_branch
from stepbench.kernels.triton.tiles import Tile

WALKS_KEYS = ("forward", "forward_one_loop", "backward_queries")  # the others own keys and walk over queries
_OFFSETS = (250, 700, 1200, 1900)  # cycles between the starts of programs side by side; their mean is taken


@dataclass(frozen=True)
class Speed:
    """How long parts of a program take, in cycles.

    Attributes:
        before: from its start to its first loop.
        between: from the end of each loop to the start of the next.
        after: from the end of the last loop.
        rounds: loop, then number of programs side by side minus one: cycles of a round.
        inside: what a multiprocessor does in the loop without a mask, with all programs side by side: a replay's
            counts, from which those of a shorter one are taken off.
        masked: which of the loops is the one with a mask.
    """

    before: float
    between: tuple[float, ...]
    after: float
    rounds: tuple[tuple[float, ...], ...]
    inside: Replay
    masked: int


def speed(code: Sequence[Instruction], warps: int, programs: int, copied: Mapping[int, int], machine: Machine) -> Speed:
    """Replay one program alone, and up to `programs` of them side by side, with staggered starts."""
    code = list(code)
    found = loops(code)
    skipping: list[frozenset[int]] = [frozenset()]
    if len(found) == 1 and (branch := mask_branch(code, found[0])) is not None:
        skipping = [frozenset([branch]), frozenset()]  # without the mask, and with it
    ends = [last for _, last in found]
    # What is measured: (branches taken, last instruction of the loop, number of the loop).
    parts = [(taken, end) for taken in skipping for end in ends]

    def run(number: int, trips: Mapping[int, int], taken: frozenset[int], offset: float = 0.0) -> Replay:
        return Quarter(code, warps, number, copied, machine, offset).run(trips, taken)

    per_program = max(1, warps // 4)
    alone = run(1, {end: 12 if end == ends[0] else 9 for end in ends}, skipping[0])
    rounds = []
    for taken, end in parts:
        times: list[float] = []
        for number in range(1, programs + 1):
            gaps = []
            for offset in (0,) if number == 1 else _OFFSETS if number == programs else (400,):
                trips = {e: (12 if e == ends[0] else 9) + (10 if number > 1 else 0) for e in ends}
                seen = run(number, trips, taken, offset).rounds
                each = [seen[i * per_program, end] for i in range(number)]
                start, stop = max(r[4] for r in each), min(r[-1] for r in each)
                inside = [[t for t in r if start <= t <= stop] for r in each]
                gaps += [(r[-1] - r[0]) / (len(r) - 1) for r in inside if len(r) > 1]
            times.append(sum(gaps) / len(gaps) if gaps else times[-1] * number / (number - 1))
        rounds.append(tuple(times))
    marks = [alone.rounds[0, end] for end in ends]
    before = max(0.0, marks[0][-1] - len(marks[0]) * rounds[0][0])
    between = [
        max(0.0, mark[-1] - previous[-1] - len(mark) * time[0])
        for previous, mark, time in zip(marks, marks[1:], rounds[1:], strict=False)
    ]
    masking = [sum(x.name in ("FSEL", "ISETP", "SEL", "FSETP") for x in code[a : b + 1]) for a, b in found]
    plain = masking.index(min(masking))
    long, short = (
        run(programs, {end: n if end == ends[plain] else 1 for end in ends}, skipping[0], 900) for n in (30, 15)
    )
    if len(skipping) == 2:
        between = [0.0]
    masked = 1 if len(skipping) == 2 else masking.index(max(masking))
    after = alone.ends[-1] - marks[-1][-1]
    return Speed(before, tuple(between), after, tuple(rounds), long.less(short), masked)


def shares(
    kernel: str, length: int, head_dim: int, tile: Tile, pairs: int, *, is_causal: bool
) -> list[tuple[int, int]]:
    """Return for every program, in the order of launch, its rounds without a mask and with one."""
    rows, columns = tile.rows, tile.columns
    offset = 0 if is_causal else length
    walks_keys = kernel in WALKS_KEYS
    tiles = -(-length // (rows if walks_keys else columns))
    by_rank = []
    for rank in range(tiles):
        if walks_keys:
            row = (tiles - 1 - rank) * rows
            plain = max(min(row + offset + 1, length), 0) // columns
            end = -(-min(row + rows + offset, length) // columns)
            by_rank.append((plain, max(end - plain, 0)))
        else:
            column, count = rank * columns, -(-length // rows)
            begin = min(max(column - offset, 0) // rows, count)
            full = min(-(-max(column + columns - 1 - offset, 0) // rows), count)
            by_rank.append((count - full, full - begin))
    section = max(CACHE_BYTES // (2 * length * head_dim * 2), 1)
    return [
        by_rank[rank]
        for first in range(0, pairs, section)
        for rank in range(tiles)
        for _ in range(min(section, pairs - first))
    ]


class _Multiprocessor:
    """Programs side by side; each is [phases left, what is left of the first of them]."""

    def __init__(self) -> None:
        self.programs: list[tuple[list[tuple[int, float]], list[float]]] = []
        self.time = 0.0
        self.version = 0

    def pace(self, speed: Speed) -> list[float]:
        """Return for each program how many cycles a unit of its phase takes now."""
        looping = sum(phases[0][0] >= 0 for phases, _ in self.programs)
        return [
            speed.rounds[loop][min(looping, len(speed.rounds[loop])) - 1] if loop >= 0 else 1.0
            for loop in (phases[0][0] for phases, _ in self.programs)
        ]

    def next_time(self, speed: Speed) -> float:
        """Return when the first of its programs ends a phase."""
        paces = self.pace(speed)
        return self.time + max(min(left[0] * pace for (_, left), pace in zip(self.programs, paces, strict=True)), 0.0)

    def advance(self, speed: Speed, time: float) -> None:
        """Let time pass."""
        for (_, left), pace in zip(self.programs, self.pace(speed), strict=True):
            left[0] -= (time - self.time) / pace
        self.time = time

    def start(self, phases: list[tuple[int, float]]) -> None:
        """Take another program."""
        self.programs.append((phases, [phases[0][1]]))


def launch_cycles(work: Sequence[tuple[int, int]], speed: Speed, programs: int) -> float:
    """Return the cycles until the last program ends.

    Args:
        work: of `shares`.
        speed: of `speed`.
        programs: at a time on a multiprocessor, which share its pipes while they are in their loops.
    """
    queue: Iterator[list[tuple[int, float]]] = (_phases(plain, masked, speed) for plain, masked in work)
    machines = [_Multiprocessor() for _ in range(MULTIPROCESSORS)]
    for _ in range(programs):
        for machine, phases in zip(machines, queue, strict=False):
            machine.start(phases)
    heap = [(machine.next_time(speed), i, 0) for i, machine in enumerate(machines) if machine.programs]
    heapq.heapify(heap)
    end = 0.0
    while heap:
        time, i, version = heapq.heappop(heap)
        machine = machines[i]
        if version != machine.version:
            continue
        machine.advance(speed, time)
        for program in [each for each in machine.programs if each[1][0] <= 1e-6]:
            phases, left = program
            phases.pop(0)
            if phases:
                left[0] = phases[0][1]
                continue
            machine.programs.remove(program)
            end = time
            if (following := next(queue, None)) is not None:
                machine.start(following)
        machine.version += 1
        if machine.programs:
            heapq.heappush(heap, (machine.next_time(speed), i, machine.version))
    return end + LAUNCH_CYCLES


def _phases(plain: int, masked: int, speed: Speed) -> list[tuple[int, float]]:
    """Return (loop, rounds), or (−1, cycles) for what lies outside the loops."""
    if len(speed.rounds) == 1:
        counts = [plain + masked]
    else:
        counts = [masked, plain] if speed.masked == 0 else [plain, masked]
    phases: list[tuple[int, float]] = [(-1, speed.before)]
    for loop, count in enumerate(counts):
        if count:
            if loop:
                phases.append((-1, speed.between[loop - 1]))
            phases.append((loop, count))
    return [*phases, (-1, speed.after)]
