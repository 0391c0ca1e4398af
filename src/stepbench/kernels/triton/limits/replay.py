"""Replay a kernel's instructions on one quarter of a multiprocessor, with the control bits that ptxas wrote.

An instruction issues when its warp's stall is over, the scoreboards that it waits for are free, and its pipe is. One
issues a cycle. What no bit tells (how long a product, a copy or a barrier takes) is in `machine`.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from stepbench.kernels.triton.limits.machine import RESULTS, UNITS, Machine
from stepbench.kernels.triton.limits.sass import Instruction


@dataclass
class Replay:
    """What a replay tells; times in cycles from its start.

    Attributes:
        cycles: until the last warp's end.
        issued: instructions.
        busy: cycles that each pipe worked: tensor, xu, alu, fma, memory, uniform, and l2 for copies.
        waits: cycles in which nothing issued, by what the next instruction waited for: product, copy, barrier, latency
            (of a result that comes after an unknown time), issue (of one that ptxas knew, or of a jump), pipe.
        rounds: (warp, last instruction of a loop): the times at which a round of it ended.
        ends: of the warps.
    """

    cycles: float = 0.0
    issued: int = 0
    busy: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    waits: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    rounds: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    ends: list[float] = field(default_factory=list)

    def less(self, other: "Replay") -> "Replay":
        """Return the counts that this replay has more than a shorter one."""
        return Replay(
            self.cycles - other.cycles,
            self.issued - other.issued,
            {name: cycles - other.busy.get(name, 0.0) for name, cycles in self.busy.items()},
            {name: cycles - other.waits.get(name, 0.0) for name, cycles in self.waits.items()},
        )


@dataclass(eq=False)
class _Program:
    """What the warps of a program share: when its copies arrive, and who waits at its barrier."""

    arrivals: list[float] = field(default_factory=list)
    is_open: bool = False  # copies that follow one announcement of bytes complete one barrier
    has_tested: bool = False
    warps: list["_Warp"] = field(default_factory=list)


@dataclass(eq=False)
class _Warp:
    """Where a warp is, and what it has under way."""

    number: int
    program: _Program
    next: float
    at: int = 0
    boards: list[float] = field(default_factory=lambda: [0.0] * 6)
    holders: list[str] = field(default_factory=lambda: ["latency"] * 6)  # what each board is held for
    product_end: float = 0.0  # of its last one
    groups: list[float] = field(default_factory=list)
    load_end: float = 0.0
    load_groups: list[float] = field(default_factory=list)
    phases: int = 0
    announced: int = 0
    rounds: Counter[int] = field(default_factory=Counter)
    is_waiting: bool = False
    is_done: bool = False
    ready: float = 0.0
    reason: str = "issue"


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
        self._free = dict.fromkeys(["tensor", "copy", "l2", *(unit.pipe for unit in UNITS.values())], 0.0)
        self._pipes = {kind: unit.pipe for kind, unit in UNITS.items() if kind != "hmma"}
        self._warps: list[_Warp] = []
        for i in range(programs):
            program = _Program()
            for _ in range(max(1, warps // 4)):
                program.warps.append(_Warp(len(self._warps), program, i * offset))
                self._warps.append(program.warps[-1])
        self.result = Replay()

    def run(self, trips: Mapping[int, int], taken: frozenset[int] = frozenset()) -> Replay:
        """Run to the end.

        Args:
            trips: how often each loop runs, by the index of its last instruction.
            taken: guarded branches to take besides those of loops.
        """
        now, last, taken = 0.0, None, taken | _guards(self._code, trips)
        for warp in self._warps:
            self._settle(warp)
        while True:
            best, soonest, why = None, 1e18, ""
            for warp in self._warps:
                if warp.is_done or warp.is_waiting:
                    continue
                time, reason = self._earliest(warp, now)
                time = max(time, now)
                if time < soonest or (time == soonest and warp is last):  # it stays with a warp as long as it can
                    best, soonest, why = warp, time, reason
            if best is None:
                break
            if soonest > now:
                after_barrier = why == "issue" and self._code[best.at - 1].kind == "barrier"
                self.result.waits["barrier" if after_barrier else why] += soonest - now
            self._issue(best, soonest, trips, taken)
            now, last = soonest + 1, best
        if not all(warp.is_done for warp in self._warps):
            raise RuntimeError("a replay must end, got warps that wait at a barrier for ever")
        self.result.cycles = now
        return self.result

    def _settle(self, warp: _Warp) -> None:
        """Note from when on the warp itself allows its next instruction, and what kept it."""
        x = self._code[warp.at]
        ready, reason = warp.next, "issue"
        for board in x.waits:
            if warp.boards[board] > ready:
                ready, reason = warp.boards[board], warp.holders[board]
        until = 0.0
        if x.kind == "product":
            until = warp.product_end  # a warp has one under way at a time
        elif x.kind == "wait" and len(warp.groups) > x.amount:
            until = warp.groups[-x.amount - 1] + self._machine.drain
        elif x.kind == "load wait" and len(warp.load_groups) > x.amount:
            until = warp.load_groups[-x.amount - 1]
        if until > ready:
            ready, reason = until, "copy" if x.kind == "load wait" else "product"
        warp.ready, warp.reason = ready, reason

    def _earliest(self, warp: _Warp, now: float) -> tuple[float, str]:
        """Return when the warp's next instruction can issue, and what it waits for."""
        kind = self._code[warp.at].kind
        if (pipe := self._pipes.get(kind)) is not None:
            free = self._free[pipe] if kind != "imad" else max(self._free["fma"], self._free["fma half"])
            if free > warp.ready:
                return free, "pipe"
        elif kind == "phase" and self._lacks_copy(warp):
            mates = [mate for mate in warp.program.warps if not (mate.is_done or mate.is_waiting)]
            if len(mates) > 1:
                if all(map(self._lacks_copy, mates)):
                    warp.program.arrivals.append(now)  # none will be asked for: let it pass
                return max(warp.ready, now + 4), "copy"  # another warp has yet to ask for it
        return warp.ready, warp.reason

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
        machine, program, kind = self._machine, warp.program, x.kind
        is_leader = warp is program.warps[0]
        if (unit := UNITS.get(kind)) is not None:
            amount = x.amount if kind in ("shared", "shared matrix", "load") else 1
            done = self._occupy(unit.pipe, unit.cycles * amount, now) - 1 + unit.latency
            if kind == "load":
                # 32 lanes of 4 bytes for each word, and the other three quarters copy as much at the same time.
                warp.load_end = max(warp.load_end, self._fetch(512 * x.amount, now) + machine.load)
            return done
        if kind == "product":
            cycles = max(x.amount / machine.columns, x.bytes / machine.shared_bytes)
            warp.product_end = self._occupy("tensor", cycles, now + machine.product)
            if x.closes:
                warp.groups.append(warp.product_end)
        elif kind == "load group":
            warp.load_groups.append(warp.load_end or now)
            warp.load_end = 0.0
        elif kind == "copy" and is_leader:
            arrival = self._fetch(self._copied[warp.at], now)
            arrival += machine.copy if program.has_tested else machine.first_copy
            if program.is_open and program.arrivals:
                arrival = max(program.arrivals.pop(), arrival)
            program.arrivals.append(arrival)
            program.is_open = True
        elif kind == "expect":
            warp.announced += 1
            program.is_open = program.is_open and not is_leader
        elif kind == "phase":
            arrival = program.arrivals[warp.phases] if warp.phases < len(program.arrivals) else now
            warp.phases += 1
            program.has_tested = True
            return max(now, arrival) + machine.phase
        elif kind == "barrier":
            warp.is_waiting = True
        return now + RESULTS.get(kind, 0)

    def _issue(self, warp: _Warp, now: float, trips: Mapping[int, int], taken: frozenset[int]) -> None:
        """Issue the warp's next instruction and move it on."""
        at, x = warp.at, self._code[warp.at]
        self.result.issued += 1
        warp.next = now + max(1, x.stall)
        done = self._execute(warp, x, now)
        warp.at += 1
        if x.kind == "branch" and self._jumps(warp, x, at, now, trips, taken):
            warp.at, warp.next = x.target, now + max(x.stall, self._machine.branch)
        if x.sets_written < 6 and done > warp.boards[x.sets_written]:
            warp.boards[x.sets_written] = done
            warp.holders[x.sets_written] = "copy" if x.kind == "phase" else "latency"
        if x.sets_read < 6:
            if x.kind == "xu":
                done += UNITS["xu"].cycles - UNITS["xu"].latency
            elif x.kind not in ("copy", "expect", "barrier object", "store", "atomic", "shared", "shared matrix"):
                done = min(done, now + 12)
            warp.boards[x.sets_read] = max(warp.boards[x.sets_read], done)
        if warp.at >= len(self._code) or (x.kind == "exit" and not x.guarded):
            warp.is_done = True
            self.result.ends.append(now)
            return
        self._settle(warp)
        if warp.is_waiting and all(mate.is_waiting for mate in warp.program.warps):
            for mate in warp.program.warps:
                mate.is_waiting, mate.next = False, max(mate.next, now + self._machine.barrier)
                self._settle(mate)

    def _jumps(
        self, warp: _Warp, x: Instruction, at: int, now: float, trips: Mapping[int, int], taken: frozenset[int]
    ) -> bool:
        if not 0 <= x.target < at:
            return x.target >= 0 and (not x.guarded or at in taken)
        if at not in trips:
            return False
        warp.rounds[at] += 1
        self.result.rounds.setdefault((warp.number, at), []).append(now)
        if warp.rounds[at] < trips[at]:
            return True
        warp.rounds[at], warp.phases = 0, max(warp.phases, warp.announced)  # none is copied for rounds beyond the last
        return False


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
