"""From the rounds of one multiprocessor to a launch: how fast programs run side by side, and how they fill the GPU."""

import functools
import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stepbench.kernels.triton.limits.machine import CACHE_BYTES, MULTIPROCESSORS, Machine
from stepbench.kernels.triton.limits.replay import Quarter, Replay
from stepbench.kernels.triton.limits.sass import MASKING, Instruction, loops, mask_branches
from stepbench.kernels.triton.tiles import Tile

WALKS_KEYS = ("forward", "forward_one_loop", "backward_queries")  # the others own keys and walk over queries
Work = Sequence[tuple[int, int]]  # of every program, in the order of launch: rounds without a mask, and with one
_OFFSETS = (250, 700, 1200, 1900)  # cycles between the starts of programs side by side; their mean is taken


@dataclass(frozen=True)
class Speed:
    """How long the parts of a program take, in cycles, and what its loop without a mask does.

    A program has two parts with rounds, one of which asks for the mask: two loops, or one loop whose mask is skipped.

    Attributes:
        before: from its start to its first part.
        between: from the end of that to the start of the second.
        after: from the end of the second.
        rounds: of each part, by number of programs side by side minus one: cycles of a round.
        masked: which of the parts is the one with a mask.
        busy: share of the cycles of rounds without a mask in which each pipe works, with all programs side by side.
        waits: likewise, share in which nothing issues, by what is waited for.
    """

    before: float
    between: float
    after: float
    rounds: tuple[tuple[float, ...], ...]
    masked: int
    busy: Mapping[str, float]
    waits: Mapping[str, float]


def speed(code: Sequence[Instruction], warps: int, programs: int, copied: Mapping[int, int], machine: Machine) -> Speed:
    """Replay one program alone, and up to `programs` of them side by side, with staggered starts."""
    found = loops(code)
    first, second = found[0], found[-1]
    skipped = mask_branches(code, first) if first == second else frozenset()
    parts = [(first[1], skipped), (second[1], frozenset())]  # the end of a loop, and branches that are taken
    masking = [sum(x.name in MASKING for x in code[start : end + 1]) for start, end in (first, second)]
    masked = int(masking[1] >= masking[0])

    @functools.cache
    def replay(number: int, offset: float, taken: frozenset[int], trips: tuple[int, int]) -> Replay:
        """Replay programs with these rounds of each loop; the first number counts where there is only one loop."""
        of_loops = {second[1]: trips[1], first[1]: trips[0]}
        return Quarter(code, warps, number, copied, machine, offset).run(of_loops, taken)

    def cycles(end: int, taken: frozenset[int]) -> tuple[float, ...]:
        """Return how long a round of a part takes beside 0, 1, … other programs."""
        times: list[float] = []
        for number in range(1, programs + 1):
            offsets = (0,) if number == 1 else _OFFSETS if number == programs else (400,)
            trips = (12, 9) if number == 1 else (22, 19)
            replays = [replay(number, offset, taken, trips) for offset in offsets]
            gaps = [gap for each in replays for gap in _gaps(each, end, number, max(1, warps // 4))]
            times.append(sum(gaps) / len(gaps) if gaps else times[-1] * number / (number - 1))
        return tuple(times)

    rounds = tuple(cycles(*part) for part in parts)
    alone = replay(1, 0, skipped, (12, 9))
    marks = [alone.rounds[0, end] for end, _ in parts]
    long, short = (replay(programs, 900, skipped, (n, 1) if masked else (1, n)) for n in (30, 15))
    inside = long.cycles - short.cycles
    return Speed(
        before=max(0.0, marks[0][-1] - len(marks[0]) * rounds[0][0]),
        between=max(0.0, marks[1][-1] - marks[0][-1] - len(marks[1]) * rounds[1][0]),
        after=alone.ends[-1] - marks[1][-1],
        rounds=rounds,
        masked=masked,
        busy={name: (time - short.busy[name]) / inside for name, time in long.busy.items()},
        waits={name: (time - short.waits[name]) / inside for name, time in long.waits.items()},
    )


def _gaps(replay: Replay, end: int, programs: int, warps: int) -> list[float]:
    """Return how long a round takes in each program while all of them are in the loop, from its fifth round on."""
    each = [replay.rounds[i * warps, end] for i in range(programs)]
    start, stop = max(times[4] for times in each), min(times[-1] for times in each)
    inside = [[time for time in times if start <= time <= stop] for times in each]
    return [(times[-1] - times[0]) / (len(times) - 1) for times in inside if len(times) > 1]


def shares(kernel: str, length: int, head_dim: int, tile: Tile, pairs: int, *, is_causal: bool) -> Work:
    """Return the rounds that every program takes at Tq = Tk = `length`; `pairs` = batch · heads."""
    rows, columns = tile.rows, tile.columns
    offset = 0 if is_causal else length
    of_a_pair = []
    if kernel in WALKS_KEYS:
        for row in reversed(range(0, length, rows)):
            plain = min(row + offset + 1, length) // columns
            end = -(-min(row + rows + offset, length) // columns)
            of_a_pair.append((plain, end - plain))
    else:
        count = -(-length // rows)
        for column in range(0, length, columns):
            begin = max(column - offset, 0) // rows
            full = min(-(-max(column + columns - 1 - offset, 0) // rows), count)
            of_a_pair.append((count - full, full - begin))
    section = max(CACHE_BYTES // (2 * length * head_dim * 2), 1)
    return [
        share for first in range(0, pairs, section) for share in of_a_pair for _ in range(min(section, pairs - first))
    ]


@dataclass
class _Phase:
    """What is left of a phase of a program: rounds of one of its parts, or cycles outside of them."""

    part: int | None
    left: float


def grid_cycles(work: Work, speed: Speed, programs: int) -> float:
    """Return the cycles until the last program ends.

    Args:
        work: of `shares`.
        speed: of `speed`.
        programs: at a time on a multiprocessor, which share its pipes while they are in their loops.
    """
    queue = (_phases(plain, masked, speed) for plain, masked in work)
    # What each multiprocessor runs: programs, each the list of its phases, of which the first is under way.
    running: list[list[list[_Phase]]] = [[] for _ in range(MULTIPROCESSORS)]
    for _ in range(programs):
        for mates, phases in zip(running, queue, strict=False):
            mates.append(phases)
    # Of each multiprocessor: when its next phase ends, its number, and when its last one ended.
    heap = [(0.0, i, 0.0) for i in range(MULTIPROCESSORS)]
    end = 0.0
    while heap:
        time, i, before = heapq.heappop(heap)
        mates = running[i]
        for phases, pace in zip(mates, _paces(mates, speed), strict=True):
            phases[0].left -= (time - before) / pace
        for phases in [each for each in mates if each[0].left <= 1e-6]:
            phases.pop(0)
            if not phases:
                mates.remove(phases)
                mates.extend(itertools.islice(queue, 1))
                end = time
        if mates:
            left = min(phases[0].left * pace for phases, pace in zip(mates, _paces(mates, speed), strict=True))
            heapq.heappush(heap, (time + max(0.0, left), i, time))
    return end


def _paces(mates: Sequence[Sequence[_Phase]], speed: Speed) -> list[float]:
    """Return for each program how many cycles a unit of its phase takes now."""
    parts = [phases[0].part for phases in mates]
    others = sum(part is not None for part in parts) - 1
    return [1.0 if part is None else speed.rounds[part][others] for part in parts]


def _phases(plain: int, masked: int, speed: Speed) -> list[_Phase]:
    first, second = (plain, masked) if speed.masked else (masked, plain)
    of_second = [_Phase(None, speed.between), _Phase(1, second)] if second else []
    return [_Phase(None, speed.before), _Phase(0, first), *of_second, _Phase(None, speed.after)]
