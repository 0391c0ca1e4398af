"""Measured memory of a step: the allocator's own events, as torch's profiler reports them.

The profiler starts before the model exists, because it does not report the free of an earlier allocation. On CUDA
the peaks of the caching allocator are read as well, and are the ones to report.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from stepbench import versions
from stepbench.measure import memory
from stepbench.measure.devices import KINDS
from stepbench.measure.memory_timeline import Change, Claim, Span, Timeline, WatchedStep, build

DEVICE_TYPES = {"cpu": 0, "cuda": 1}  # c10::DeviceType, as the trace gives it
MARK = "stepbench memory: "
PRIMING = "first step"
MICROSECOND = 1e-6
SNAPSHOT_EVENTS = 100_000


@dataclass(frozen=True)
class Watched:
    """The memory of one step.

    Attributes:
        timeline: from the allocator's events.
        allocator_peak_bytes: phase -> peak of the caching allocator (`cuda`); empty elsewhere.
    """

    timeline: Timeline
    allocator_peak_bytes: dict[str, int]


def watch(make: Callable[[], WatchedStep], *, device: str, snapshot: Path | None = None) -> Watched:
    """Run two steps and return the timeline of the second, when gradients and optimizer state exist.

    Args:
        make: builds the step.
        device: `cuda` or `cpu`.
        snapshot: where to write CUDA's memory snapshot of the second step, for torch's viewer. It is a pickle;
            this package writes it and never reads it.

    Raises:
        ValueError: `device` is another one, whose allocator reports no events.
    """
    if device not in DEVICE_TYPES:
        raise ValueError(f"`device` must be one of {', '.join(DEVICE_TYPES)}, got {device!r}")
    peaks: dict[str, int] = {}
    owned: list[tuple[str, dict[str, list[int]]]] = []
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step = make()
        with _marked(PRIMING, device):
            for work in step.phases.values():
                work()
        owned.append((PRIMING, _addresses(step.owned())))
        history = (
            versions.allocation_history(snapshot, events=SNAPSHOT_EVENTS) if snapshot and device == "cuda" else None
        )
        with history or contextlib.nullcontext():
            for name, work in step.phases.items():
                memory.reset_peak(device)
                with _marked(name, device):
                    work()
                if (peak := memory.peak_bytes(device)["peak_memory_bytes"]) is not None:
                    peaks[name] = peak
                owned.append((name, _addresses(step.owned())))
    with tempfile.TemporaryDirectory(prefix="stepbench-") as folder:
        trace = Path(folder, "trace.json")
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_bytes())["traceEvents"]
    return Watched(read(events, owned, device=device), peaks)


def read(
    events: Iterable[Mapping[str, Any]], owned: Iterable[tuple[str, Mapping[str, Iterable[int]]]], *, device: str
) -> Timeline:
    """Return the timeline of a trace.

    Args:
        events: events of a Chrome trace; only marks and memory events are used.
        owned: for the first step and each phase, by the name of its mark, category -> addresses at its end.
        device: `cuda` or `cpu`.

    Raises:
        ValueError: a phase has no mark in the trace.
    """
    changes, marks = [], {}
    for event in events:
        if event.get("name") == "[memory]" and event["args"]["Device Type"] == DEVICE_TYPES[device]:
            changes.append(Change(float(event["ts"]) * MICROSECOND, event["args"]["Addr"], event["args"]["Bytes"]))
        elif event.get("ph") == "X" and str(event.get("name")).startswith(MARK):
            start, end = float(event["ts"]), float(event["ts"]) + float(event["dur"])
            name = event["name"].removeprefix(MARK)
            marks[name] = Span(name, start * MICROSECOND, end * MICROSECOND)
    changes.sort(key=lambda change: change.moment)
    claims: list[Claim] = []
    for name, categories in owned:
        if name not in marks:
            raise ValueError(f"the trace has no mark for the phase {name}")
        for category, addresses in categories.items():
            claims.extend(Claim(marks[name].end, address, category) for address in addresses)
    spans = sorted((span for span in marks.values() if span.name != PRIMING), key=lambda span: span.start)
    return build(changes, claims, spans, unit="s", built=marks[PRIMING].start)


@contextlib.contextmanager
def _marked(name: str, device: str) -> Iterator[None]:
    with record_function(f"{MARK}{name}"):
        yield
        if KINDS[device].counts_memory:
            torch.accelerator.synchronize()


def _addresses(owned: Mapping[str, Iterable[Tensor]]) -> dict[str, list[int]]:
    return {
        category: [tensor.untyped_storage().data_ptr() for tensor in tensors] for category, tensors in owned.items()
    }
