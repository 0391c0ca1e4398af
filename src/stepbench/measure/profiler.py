"""The time of a step by operator and kernel, from torch's profiler around each phase.

An operator's self time is its time on the host without the operators that it calls; its device time is that of the
kernels that it launches itself. Without an accelerator there are only operators, and the host's time is the work.
Counts and times are per step, averaged over `PROFILED_STEPS` steps.

Named ranges (`torch.profiler.record_function`) include their part of the backward pass: an autograd node has the
sequence number of the operator that created it, and so belongs to the range in which that operator ran.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from stepbench.measure.devices import KINDS
from stepbench.measure.measurement import UnsupportedError

MARK = "stepbench phase: "
STEP = "step"
PROFILED_STEPS = 3
MICROSECOND = 1e-6
NO_KERNELS = (
    "torch's profiler saw no kernel of the GPU, so that all its times would be the host's: CUPTI must be there and "
    "allowed (NVreg_RestrictProfilingToAdminUsers=0, or the capability SYS_ADMIN in a container)"
)
_BACKWARD_NODE = "autograd::engine::evaluate_function: "
_MAX_NAME = 200  # a templated kernel's name can be a page long


@dataclass(frozen=True)
class Operator:
    """The cost of one operator in one phase of a step."""

    phase: str
    name: str
    calls: float
    self_s: float
    device_s: float


@dataclass(frozen=True)
class Kernel:
    """The cost of one kernel in one phase of a step, when launched by one operator."""

    phase: str
    name: str
    operator: str
    calls: float
    device_s: float


@dataclass(frozen=True)
class Range:
    """The cost of a named range in one phase of a step."""

    phase: str
    name: str
    calls: float
    host_s: float
    device_s: float


@dataclass(frozen=True)
class Profile:
    """The result of profiling.

    Attributes:
        phase_s: phase -> the seconds of each profiled step, on the host's clock; `step` is all phases together.
        operators: by phase and name.
        kernels: by phase, name and operator; empty without an accelerator.
        ranges: by phase and name.
    """

    phase_s: dict[str, list[float]]
    operators: list[Operator]
    kernels: list[Kernel]
    ranges: list[Range]

    def details(self) -> dict[str, Any]:
        """Return the lists as JSON values for a record."""
        return {name: [asdict(each) for each in getattr(self, name)] for name in ("operators", "kernels", "ranges")}


def run(
    phases: Mapping[str, Callable[[], object]],
    *,
    device: str,
    ranges: str,
    trace: Path | None = None,
) -> Profile:
    """Profile `PROFILED_STEPS` steps, after one warm-up step of the profiler; the caller has warmed up the step itself.

    Args:
        phases: name -> work, in order; `PROFILED_STEPS + 1` steps are run.
        device: `cuda`, `mps` or `cpu`.
        ranges: prefix of the names of the ranges to report.
        trace: where to write the Chrome trace, a path that ends in `.json.gz`.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if KINDS[device].has_events else [])
    rounds = schedule(wait=0, warmup=1, active=PROFILED_STEPS, repeat=1)
    with profile(activities=activities, schedule=rounds, acc_events=True) as profiler:
        for _ in range(PROFILED_STEPS + 1):
            with record_function(f"{MARK}{STEP}"):
                for name, work in phases.items():
                    with record_function(f"{MARK}{name}"):
                        work()
                        if KINDS[device].has_events:
                            torch.accelerator.synchronize()
            profiler.step()
    events = profiler.events() or []
    if KINDS[device].has_events and not any(event.device_type == DeviceType.CUDA for event in events):
        raise UnsupportedError(NO_KERNELS)
    if trace is not None:
        profiler.export_chrome_trace(str(trace))
    return read(events, list(phases), ranges=ranges)


def read(events: Iterable[Any], phases: Iterable[str], *, ranges: str) -> Profile:
    """Return the costs per step from the profiler's events.

    Args:
        events: `torch.autograd.profiler_util.FunctionEvent`s.
        phases: the names of the phases.
        ranges: prefix of the names of the ranges to report.

    Raises:
        ValueError: the events contain no mark of a phase.
    """
    on_host = [event for event in events if event.device_type == DeviceType.CPU]
    spans = _spans(on_host, [*phases, STEP])
    inside = [(phase, event) for event in on_host if (phase := _phase(event, spans)) is not None]
    steps = len(spans[STEP])
    return Profile(
        phase_s={name: [(end - start) * MICROSECOND for start, end in found] for name, found in spans.items()},
        operators=_operators(inside, steps),
        kernels=_kernels(inside, steps),
        ranges=_ranges(inside, steps, ranges),
    )


def _spans(events: Iterable[Any], names: Iterable[str]) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for event in events:
        name = event.name.removeprefix(MARK)
        if event.name.startswith(MARK) and name in found:
            found[name].append((event.time_range.start, event.time_range.end))
    if missing := [name for name, spans in found.items() if not spans]:
        raise ValueError(f"the profiler did not record the phase {missing[0]}")
    return found


def _phase(event: Any, spans: Mapping[str, list[tuple[float, float]]]) -> str | None:
    """Return the phase in which an event started, by time, because a backward pass on a GPU runs in its own thread."""
    if event.name.startswith((MARK, "ProfilerStep#")):
        return None
    for name, found in spans.items():
        if name != STEP and any(start <= event.time_range.start < end for start, end in found):
            return name
    return None


def _operators(inside: Iterable[tuple[str, Any]], steps: int) -> list[Operator]:
    totals: dict[tuple[str, str], list[float]] = {}
    for phase, event in inside:
        total = totals.setdefault((phase, event.name[:_MAX_NAME]), [0.0, 0.0, 0.0])
        total[0] += 1
        total[1] += max(0.0, event.self_cpu_time_total) * MICROSECOND
        total[2] += sum(kernel.duration for kernel in event.kernels) * MICROSECOND
    found = [Operator(*key, *(part / steps for part in total)) for key, total in totals.items()]
    return sorted(found, key=lambda each: -(each.self_s + each.device_s))


def _kernels(inside: Iterable[tuple[str, Any]], steps: int) -> list[Kernel]:
    totals: dict[tuple[str, str, str], list[float]] = {}
    for phase, event in inside:
        for kernel in event.kernels:
            total = totals.setdefault((phase, kernel.name[:_MAX_NAME], event.name[:_MAX_NAME]), [0.0, 0.0])
            total[0] += 1
            total[1] += kernel.duration * MICROSECOND
    found = [Kernel(*key, *(part / steps for part in total)) for key, total in totals.items()]
    return sorted(found, key=lambda each: -each.device_s)


def _ranges(inside: list[tuple[str, Any]], steps: int, prefix: str) -> list[Range]:
    totals: dict[tuple[str, str], list[float]] = {}
    range_of: dict[int, str] = {}
    for phase, event in inside:
        if event.name.startswith(prefix):
            name = event.name.removeprefix(prefix)
            _add(totals, (phase, name), event)
            range_of |= {each.sequence_nr: name for each in _family(event) if each.sequence_nr >= 0}
    for phase, event in inside:
        if event.name.startswith(_BACKWARD_NODE) and event.sequence_nr in range_of:
            _add(totals, (phase, range_of[event.sequence_nr]), event)
    return [Range(*key, *(part / steps for part in total)) for key, total in totals.items()]


def _add(totals: dict[tuple[str, str], list[float]], key: tuple[str, str], event: Any) -> None:
    total = totals.setdefault(key, [0.0, 0.0, 0.0])
    total[0] += 1
    total[1] += event.cpu_time_total * MICROSECOND
    total[2] += sum(kernel.duration for each in _family(event) for kernel in each.kernels) * MICROSECOND


def _family(event: Any) -> Iterator[Any]:
    """Yield an event and everything that it called."""
    yield event
    for child in event.cpu_children:
        yield from _family(child)
