"""Replay a kernel's instructions on one quarter of a multiprocessor, with the control bits that ptxas wrote.

An instruction issues when its warp's stall is over, the scoreboards that it waits for are free, and its pipe is. One
issues a cycle. What no bit tells (how long a product, a copy or a barrier takes) is in `machine`.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from stepbench.kernels.triton.limits.machine import RESULTS, UNITS, Machine
from stepbench.kernels.triton.limits.sass import Instruction

_Hold = tuple[float, str]  # until when something waits, and for what
_GROUPS = {"wait": "product", "load wait": "copy"}  # kind of an instruction → what the groups that it waits for are of


@dataclass
class Replay:
    """What a replay tells; times in cycles from its start.

    Attributes:
        cycles: until the last warp's end.
        busy: cycles that each pipe worked: issue, tensor, xu, alu, fma, memory, uniform, and l2 for copies.
        waits: cycles in which nothing issued, by what the next instruction waited for: product, copy, barrier, latency
            (of a result that comes after an unknown time), issue (of one that ptxas knew, or of a jump), pipe.
        rounds: (warp, last instruction of a loop): the times at which a round of it ended.
        ends: of the warps.
    """

    cycles: float = 0.0
    busy: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    waits: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    rounds: dict[tuple[int, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    ends: list[float] = field(default_factory=list)


@dataclass(eq=False)
class _Program:
    """What the warps of a program share: when its copies arrive, and who waits at its barrier."""

    warps: list["_Warp"] = field(default_factory=list)
    at_barrier: list["_Warp"] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    is_open: bool = False  # copies that follow one announcement of bytes complete one barrier


@dataclass(eq=False)
class _Warp:
    """Where a warp is, and what it has under way."""

    number: int
    program: _Program
    next: _Hold  # what its last instruction lets it wait for
    at: int = 0
    boards: list[_Hold] = field(default_factory=lambda: [(0.0, "latency")] * 6)
    product_end: float = 0.0  # of its last one
    load_end: float = 0.0
    groups: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in _GROUPS})  # their ends
    phases: int = 0
    announced: int = 0
    ready: _Hold = (0.0, "issue")  # what its next instruction waits for; infinite at a barrier and after its end


class Quarter:
    """A quarter of a multiprocessor with programs on it.

    Args:
        code: of `sass.parse`.
        warps: of a program, a multiple of four.
        programs: at a time.
        copied: bytes that each copy brings, by its index in `code`.
        machine: latencies.
        offset: cycles by which each program starts after the one before.
    """

    def __init__(
        self, code: Sequence[Instruction], warps: int, programs: int, copied: Mapping[int, int], machine: Machine,
        offset: float = 0.0,
    ) -> None:  # fmt: skip
        self._code, self._copied, self._machine = code, copied, machine
        self._free: dict[str, float] = defaultdict(float)  # when each pipe is
        self._warps: list[_Warp] = []
        self.result = Replay()
        for i in range(programs):
            program = _Program()
            for _ in range(max(1, warps // 4)):
                program.warps.append(_Warp(len(self._warps), program, (i * offset, "issue")))
                self._warps.append(program.warps[-1])

    def run(self, trips: Mapping[int, int], taken: frozenset[int] = frozenset()) -> Replay:
        """Run to the end.

        Args:
            trips: how often each loop runs, by the index of its last instruction.
            taken: guarded branches to take besides those of loops.
        """
        now, last, taken = 0.0, None, taken | _guards(self._code, trips)
        for warp in self._warps:
            self._settle(warp)
        while active := [warp for warp in self._warps if warp.ready[0] < math.inf]:
            best, soonest, why = active[0], math.inf, ""
            for warp in active:
                time, reason = self._earliest(warp, now)
                time = time if time > now else now  # noqa: FURB136 - max is a fifth of a replay
                if time < soonest or (time == soonest and warp is last):  # it stays with a warp as long as it can
                    best, soonest, why = warp, time, reason
            if soonest > now:
                self.result.waits[why] += soonest - now
            self._issue(best, soonest, trips, taken)
            now, last = soonest + 1, best
        if len(self.result.ends) < len(self._warps):
            raise RuntimeError("a replay must end, got warps that wait at a barrier for ever")
        self.result.cycles = now
        return self.result

    def _settle(self, warp: _Warp) -> None:
        """Note what the warp's next instruction waits for, its pipe aside."""
        x = self._code[warp.at]
        warp.ready = warp.next
        for board in x.waits:
            warp.ready = max(warp.ready, warp.boards[board], key=itemgetter(0))
        if x.kind == "product":  # a warp has one under way at a time
            warp.ready = max(warp.ready, (warp.product_end, "product"), key=itemgetter(0))
        elif x.kind in _GROUPS and len(warp.groups[x.kind]) > x.amount:
            warp.ready = max(warp.ready, (warp.groups[x.kind][-x.amount - 1], _GROUPS[x.kind]), key=itemgetter(0))

    def _earliest(self, warp: _Warp, now: float) -> _Hold:
        """Return when the warp's next instruction can issue, and what it waits for."""
        kind = self._code[warp.at].kind
        if kind in UNITS and kind != "hmma":  # these queue
            free = self._free[UNITS[kind].pipe]
            return (free, "pipe") if free > warp.ready[0] else warp.ready
        if self._lacks_copy(warp):
            if all(self._lacks_copy(mate) for mate in warp.program.warps if mate.ready[0] < math.inf):
                warp.program.arrivals.append(now)  # none will be asked for: let it pass
            return max(warp.ready[0], now + 4), "copy"  # another warp has yet to ask for it
        return warp.ready

    def _lacks_copy(self, warp: _Warp) -> bool:
        return self._code[warp.at].kind == "phase" and warp.phases >= len(warp.program.arrivals)

    def _occupy(self, pipe: str, cycles: float, now: float) -> float:
        """Keep a pipe busy and return when it is free again."""
        self._free[pipe] = max(now, self._free[pipe]) + cycles
        self.result.busy[pipe] += cycles
        return self._free[pipe]

    def _fetch(self, size: float, now: float) -> float:
        """Copy `size` bytes out of the second-level cache; return when the last of them leave it."""
        machine = self._machine
        long_run = self._occupy("l2", size / machine.copy_bytes, now)
        burst = max(self._free["copy"], now) + size / machine.burst_bytes
        self._free["copy"] = max(burst, long_run - machine.slack_bytes / machine.copy_bytes)
        return self._free["copy"]

    def _execute(self, warp: _Warp, x: Instruction, now: float) -> float:
        """Carry out one instruction but its jump; return when its result is there."""
        machine, program, is_leader = self._machine, warp.program, warp is warp.program.warps[0]
        if x.kind in UNITS:
            unit = UNITS[x.kind]
            amount = x.amount if x.kind in ("shared", "shared matrix", "load") else 1
            if x.kind == "load":
                # 32 lanes of 4 bytes for each word, and the other three quarters copy as much at the same time.
                warp.load_end = max(warp.load_end, self._fetch(512 * x.amount, now) + machine.load)
            return self._occupy(unit.pipe, unit.cycles * amount, now) - 1 + unit.latency
        if x.kind == "product":
            cycles = max(x.amount / machine.columns, x.bytes / machine.shared_bytes)
            warp.product_end = self._occupy("tensor", cycles, now + machine.product)
            if x.closes:
                warp.groups["wait"].append(warp.product_end + machine.drain)
        elif x.kind == "load group":
            warp.groups["load wait"].append(warp.load_end or now)
            warp.load_end = 0.0
        elif x.kind == "copy" and is_leader:
            arrival = self._fetch(self._copied[warp.at], now)
            arrival += machine.copy if any(mate.phases for mate in program.warps) else machine.first_copy
            if program.is_open:
                arrival = max(program.arrivals.pop(), arrival)
            program.arrivals.append(arrival)
            program.is_open = True
        elif x.kind == "expect":
            warp.announced += 1
            program.is_open = program.is_open and not is_leader
        elif x.kind == "phase":
            arrival = program.arrivals[warp.phases] if warp.phases < len(program.arrivals) else now
            warp.phases += 1
            return max(now, arrival) + machine.phase
        return now + RESULTS.get(x.kind, 0)

    def _issue(self, warp: _Warp, now: float, trips: Mapping[int, int], taken: frozenset[int]) -> None:
        """Issue the warp's next instruction and move it on."""
        x = self._code[warp.at]
        self.result.busy["issue"] += 1
        self._hold(warp, x, now, self._execute(warp, x, now))
        jumps = x.kind == "branch" and self._jumps(warp, now, trips, taken)
        warp.next = now + max(x.stall, self._machine.branch if jumps else 1), "issue"
        warp.at = x.target if jumps else warp.at + 1
        if warp.at >= len(self._code) or (x.kind == "exit" and not x.guarded):
            warp.ready = math.inf, ""
            self.result.ends.append(now)
        elif x.kind == "barrier":
            self._meet(warp, now)
        else:
            self._settle(warp)

    @staticmethod
    def _hold(warp: _Warp, x: Instruction, now: float, done: float) -> None:
        """Hold an instruction's scoreboards: one until its result is written, one until its operands are read."""
        if x.sets_written < 6:
            result = done, "copy" if x.kind == "phase" else "latency"
            warp.boards[x.sets_written] = max(warp.boards[x.sets_written], result)
        if x.sets_read < 6:
            if x.kind == "xu":
                done += UNITS["xu"].cycles - UNITS["xu"].latency
            elif x.kind not in ("copy", "expect", "barrier object", "store", "atomic", "shared", "shared matrix"):
                done = min(done, now + 12)
            warp.boards[x.sets_read] = max(warp.boards[x.sets_read], (done, "latency"))

    def _meet(self, warp: _Warp, now: float) -> None:
        """Let a warp wait at its program's barrier, and all of them go on once the last one is there."""
        warp.ready = math.inf, "barrier"
        waiting = warp.program.at_barrier
        waiting.append(warp)
        if len(waiting) == len(warp.program.warps):
            for mate in waiting:
                mate.next = max(mate.next, (now + self._machine.barrier, "barrier"))
                self._settle(mate)
            waiting.clear()

    def _jumps(self, warp: _Warp, now: float, trips: Mapping[int, int], taken: frozenset[int]) -> bool:
        at, x = warp.at, self._code[warp.at]
        if not 0 <= x.target < at:
            return x.target >= 0 and (not x.guarded or at in taken)
        if at not in trips:
            return False
        ends = self.result.rounds[warp.number, at]
        ends.append(now)
        if len(ends) == trips[at]:
            warp.phases = max(warp.phases, warp.announced)  # none is copied for rounds beyond the last
        return len(ends) < trips[at]


def _guards(code: Sequence[Instruction], trips: Mapping[int, int]) -> frozenset[int]:
    """Return guarded branches that fall through to a jump over a loop: the loop is to run, so they are taken."""
    heads = {code[last].target for last in trips}
    return frozenset(
        i
        for i, x in enumerate(code)
        if x.kind == "branch" and x.guarded and x.target > i
        for y in code[i + 1 : x.target]
        if y.kind == "branch" and not y.guarded and any(x.target <= head < y.target for head in heads)
    )
