"""The timeline of one rank from torch's profiler: two lanes of spans, computation and communication.

On a CPU computation is the phases, and a collective is Gloo's own event. On CUDA computation is the kernels, where
kernels with a short gap between them form one span, and a collective is NCCL's kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile, record_function, schedule

from stepbench.measure.devices import KINDS

MARK = "stepbench rank: "
MICROSECOND = 1e-6
GAP_S = 20e-6  # kernels closer than this form one span
DIGITS = 7  # of a second
PROFILED_STEPS = 2  # the first one is the profiler's warm-up


@dataclass(frozen=True)
class Span:
    """An event from `start_s` to `end_s`, relative to the start of the rank's own step."""

    name: str
    start_s: float
    end_s: float


def watch(
    phases: Mapping[str, Callable[[], object]], *, device: str, before: Callable[[], object]
) -> dict[str, list[list[Any]]]:
    """Run `PROFILED_STEPS` steps under the profiler and return the lanes of the last one.

    Args:
        phases: name -> work, in order.
        device: `cuda` or `cpu`.
        before: called before each step and outside it, such as a barrier.

    Returns:
        `computation` and `communication` -> `[name, start_s, end_s]`, ordered by start.
    """
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if KINDS[device].has_events else [])
    only_the_last = schedule(wait=0, warmup=PROFILED_STEPS - 1, active=1)
    with profile(activities=activities, schedule=only_the_last) as profiler:
        for number in range(PROFILED_STEPS):
            if number:
                profiler.step()
            before()
            for name, work in phases.items():
                with record_function(f"{MARK}{name}"):
                    work()
                    if KINDS[device].has_events:
                        torch.accelerator.synchronize()
    lanes = read(profiler.events() or [], list(phases))
    return {lane: [[span.name, round(span.start_s, DIGITS), round(span.end_s, DIGITS)] for span in spans]
            for lane, spans in lanes.items()}  # fmt: skip


def read(events: Iterable[Any], phases: Iterable[str]) -> dict[str, list[Span]]:
    """Return the lanes of the last step in a profiler's events.

    Args:
        events: `torch.autograd.profiler_util.FunctionEvent`s.
        phases: the names of the phases, in order.

    Raises:
        ValueError: the events contain no mark of a phase.
    """
    found = list(events)
    marks = {}
    for phase in phases:
        seen = [event for event in found if event.name == f"{MARK}{phase}" and event.device_type == DeviceType.CPU]
        if not seen:
            raise ValueError(f"the profiler did not record the phase {phase}")
        marks[phase] = max(seen, key=lambda event: event.time_range.start)
    zero = min(mark.time_range.start for mark in marks.values())
    end = max(mark.time_range.end for mark in marks.values())

    def span(event: Any, name: str) -> Span:
        return Span(name, (event.time_range.start - zero) * MICROSECOND, (event.time_range.end - zero) * MICROSECOND)

    # The profiler reports a user's range a second time for the device, over its kernels.
    inside = [
        event
        for event in found
        if zero <= event.time_range.start < end
        and not (event.device_type == DeviceType.CUDA and getattr(event, "is_user_annotation", False))
    ]
    collectives = [span(event, name) for event in inside if (name := collective(event)) is not None]
    kernels = [
        span(event, "kernels")
        for event in inside
        if event.device_type == DeviceType.CUDA and collective(event) is None and not event.name.startswith(MARK)
    ]
    computed = _merged(kernels) if kernels else [span(mark, phase) for phase, mark in marks.items()]
    return {
        "computation": sorted(computed, key=lambda each: each.start_s),
        "communication": sorted(collectives, key=lambda each: each.start_s),
    }


def collective(event: Any) -> str | None:
    """Return the operation of a backend's event, such as `all_reduce`, or None for any other event."""
    name = str(event.name)
    if name.startswith("gloo:"):
        return name.removeprefix("gloo:")
    if event.device_type == DeviceType.CUDA and name.startswith("nccl"):
        known = {"AllReduce": "all_reduce", "AllGather": "all_gather", "ReduceScatter": "reduce_scatter",
                 "Broadcast": "broadcast"}  # fmt: skip
        return next((operation for part, operation in known.items() if part in name), "nccl")
    return None


def _merged(spans: Iterable[Span]) -> list[Span]:
    found: list[Span] = []
    for each in sorted(spans, key=lambda each: each.start_s):
        if found and each.start_s - found[-1].end_s <= GAP_S:
            found[-1] = Span(each.name, found[-1].start_s, max(found[-1].end_s, each.end_s))
        else:
            found.append(each)
    return found
