"""From the rounds of one multiprocessor to a launch: how fast programs run side by side, and how they fill the GPU."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stepbench.kernels.triton.limits.machine import CACHE_BYTES, MULTIPROCESSORS, Machine
from stepbench.kernels.triton.limits.replay import Quarter, Replay
from stepbench.kernels.triton.limits.sass import MASKING, Instruction, loops, mask_branch
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
    found = loops(code)
    skipping: list[frozenset[int]] = [frozenset()]
    if len(found) == 1 and (branch := mask_branch(code, found[0])) is not None:
        skipping = [frozenset([branch]), frozenset()]  # without the mask, and with it
    ends = [last for _, last in found]
    masking = [sum(x.name in MASKING for x in code[first : last + 1]) for first, last in found]

    def run(number: int, trips: Mapping[int, int], taken: frozenset[int], offset: float) -> Replay:
        return Quarter(code, warps, number, copied, machine, offset).run(trips, taken)

    rounds: list[tuple[float, ...]] = []
    for taken in skipping:
        times: list[list[float]] = [[] for _ in ends]
        for number in range(1, programs + 1):
            trips = {end: (12 if end == ends[0] else 9) + (10 if number > 1 else 0) for end in ends}
            offsets = (0,) if number == 1 else _OFFSETS if number == programs else (400,)
            replays = [run(number, trips, taken, offset) for offset in offsets]
            if number == 1 and taken == skipping[0]:
                alone = replays[0]
            for end, so_far in zip(ends, times, strict=True):
                gaps = [gap for replay in replays for gap in _gaps(replay, end, number, max(1, warps // 4))]
                so_far.append(sum(gaps) / len(gaps) if gaps else so_far[-1] * number / (number - 1))
        rounds += map(tuple, times)
    marks = [alone.rounds[0, end] for end in ends]
    between = [
        max(0.0, mark[-1] - previous[-1] - len(mark) * time[0])
        for previous, mark, time in zip(marks, marks[1:], rounds[1:], strict=False)
    ]
    plain = ends[masking.index(min(masking))]
    long, short = (run(programs, {end: n if end == plain else 1 for end in ends}, skipping[0], 900) for n in (30, 15))
    return Speed(
        before=max(0.0, marks[0][-1] - len(marks[0]) * rounds[0][0]),
        between=(0.0,) if len(skipping) == 2 else tuple(between),
        after=alone.ends[-1] - marks[-1][-1],
        rounds=tuple(rounds),
        inside=long.less(short),
        masked=1 if len(skipping) == 2 else masking.index(max(masking)),
    )


def _gaps(replay: Replay, end: int, programs: int, warps: int) -> list[float]:
    """Return how long a round takes in each program while all of them are in the loop, from its fifth round on."""
    each = [replay.rounds[i * warps, end] for i in range(programs)]
    start, stop = max(times[4] for times in each), min(times[-1] for times in each)
    inside = [[time for time in times if start <= time <= stop] for times in each]
    return [(times[-1] - times[0]) / (len(times) - 1) for times in inside if len(times) > 1]


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


def grid_cycles(work: Sequence[tuple[int, int]], speed: Speed, programs: int) -> float:
    """Return the cycles until the last program ends.

    Args:
        work: of `shares`.
        speed: of `speed`.
        programs: at a time on a multiprocessor, which share its pipes while they are in their loops.
    """
    queue: Iterator[list[list[float]]] = (_phases(plain, masked, speed) for plain, masked in work)
    # What each multiprocessor runs: programs, each the list of its phases, of which the first is under way.
    running: list[list[list[list[float]]]] = [[] for _ in range(MULTIPROCESSORS)]
    for _ in range(programs):
        for mates, phases in zip(running, queue, strict=False):
            mates.append(phases)
    times = [0.0] * MULTIPROCESSORS  # of the last event on each
    heap = [(_next_time(0.0, mates, speed), i) for i, mates in enumerate(running) if mates]
    heapq.heapify(heap)
    end = 0.0
    while heap:
        time, i = heapq.heappop(heap)
        mates = running[i]
        for phases, pace in zip(mates, _paces(mates, speed), strict=True):
            phases[0][1] -= (time - times[i]) / pace
        times[i] = time
        for phases in [each for each in mates if each[0][1] <= 1e-6]:
            phases.pop(0)
            if phases:
                continue
            mates.remove(phases)
            end = time
            if (following := next(queue, None)) is not None:
                mates.append(following)
        if mates:
            heapq.heappush(heap, (_next_time(time, mates, speed), i))
    return end


def _paces(mates: Sequence[Sequence[Sequence[float]]], speed: Speed) -> list[float]:
    """Return for each program how many cycles a unit of its phase takes now."""
    loops_now = [int(phases[0][0]) for phases in mates]
    looping = sum(loop >= 0 for loop in loops_now)
    return [speed.rounds[loop][min(looping, len(speed.rounds[loop])) - 1] if loop >= 0 else 1.0 for loop in loops_now]


def _next_time(now: float, mates: Sequence[Sequence[Sequence[float]]], speed: Speed) -> float:
    """Return when the first of these programs ends a phase."""
    left = (phases[0][1] * pace for phases, pace in zip(mates, _paces(mates, speed), strict=True))
    return now + max(min(left), 0.0)


def _phases(plain: int, masked: int, speed: Speed) -> list[list[float]]:
    """Return [loop, rounds], or [−1, cycles] for what lies outside the loops."""
    if len(speed.rounds) == 1:
        counts = [plain + masked]
    else:
        counts = [masked, plain] if speed.masked == 0 else [plain, masked]
    phases: list[list[float]] = [[-1, speed.before]]
    for loop, count in enumerate(counts):
        if count:
            if loop:
                phases.append([-1, speed.between[loop - 1]])
            phases.append([loop, count])
    return [*phases, [-1, speed.after]]
