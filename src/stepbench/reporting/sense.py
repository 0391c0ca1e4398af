"""Plausibility checks: the numbers of a point against each other, against the machine's peaks and its memory.

A number that fails a check is not dropped. It carries a warning, so that it is never read alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from stepbench.measure.timing import MIN_REGION_S
from stepbench.pipeline.records import Record
from stepbench.reporting import peaks as peaks_module
from stepbench.reporting import units
from stepbench.reporting.conditions import runs_on_gpu
from stepbench.reporting.marks import Mark
from stepbench.reporting.peaks import Peaks
from stepbench.reporting.points import Group

PARTS = ("forward", "backward", "synchronization", "optimizer")
WHOLE = "step"
ABOVE_PEAK = 1.05  # of the measured peak, which has an error of its own
ABOVE_COPY = 2.0  # of the copy's bytes/s: a copy reads as much as it writes, and a write costs a read as well
PARTS_BETWEEN = (0.9, 1.3)  # the phases' sum over the whole step; synchronising between them may cost a little
# Ranks wait for each other elsewhere in a whole step: 0.88 was seen on two ranks that share two cores.
PARTS_OF_RANKS_BETWEEN = (0.8, 1.5)
LEAST_REGION_S = 1e-8  # no call of a Python function takes less
MIN_EVENT_REGION_S = 1e-5  # of events on a stream, which tell half a microsecond
# AdamW in float32 reads weight, gradient and both moments, writes all but the gradient, and holds four numbers.
ADAMW_MOVED_BYTES, ADAMW_HELD_BYTES = 28, 16
SGD_MOVED_BYTES = 12  # it reads weight and gradient, and writes the weight

TIMED = re.compile(r"(forward|backward|optimizer|step|call|matmul_\d+|copy_\d+_mib)_s")
WRONG = "wrong_result"  # the kind of a record's reason


def find(group: Group, peaks: Peaks) -> tuple[Mark, ...]:
    """Return the warnings `wrong`, `impossible`, `parts and whole differ` and `short` of a point."""
    checks = (_wrong, _regions, _parts, _communication, _memory)
    found = [mark for check in checks for mark in check(group)]
    against_peaks = (*_flops(group, peaks), *_bytes(group, peaks), *_rates(group))
    return tuple(dict.fromkeys([*found, *(Mark("impossible", told) for told in against_peaks)]))


def moved_bytes(optimizer: str, parameter_dtype: str) -> int:
    """Return the bytes that an optimizer moves for each parameter; its state has the parameters' dtype."""
    of_fp32 = SGD_MOVED_BYTES if optimizer == "sgd" else ADAMW_MOVED_BYTES
    return of_fp32 // 2 if parameter_dtype == "bf16" else of_fp32


def flops(group: Group) -> int | None:
    """Return the FLOPs of what was timed: the forward pass, and the backward pass where there was one."""
    forward, backward = group.scalar("forward_flops"), group.scalar("backward_flops")
    if forward is None:
        return None
    return int(forward if group.point.get("passes") == "forward" else forward + (backward or 0))


def _wrong(group: Group) -> Iterable[Mark]:
    records = [row["record"] for row in group.rows if row["record"] is not None and row["state"] != "stale"]
    failed = [record for record in records if _is_wrong(record)]
    if failed:
        yield Mark("wrong", f"in {len(failed)} of {len(group.rows)} processes" if len(group.rows) > 1 else "")
    for record in group.records:
        error, allowed = (record.scalars.get(f"equivalence_{key}_ratio") for key in ("difference", "tolerance"))
        if error is not None and allowed is not None and not error <= allowed:
            yield Mark("wrong", f"error {units.scientific(error)}, tolerance {units.scientific(allowed)}")


def _is_wrong(record: Record) -> bool:
    """Return whether a result was refused because it is wrong.

    Records from before reasons had a kind say so by the name of the exception that every check of a result raises.
    """
    if record.kind is None:
        return record.status == "error" and (record.reason or "").startswith("ArithmeticError: ")
    return record.kind == WRONG


def _regions(group: Group) -> Iterable[Mark]:
    for record in group.records:
        by_events = "events" in str(record.protocol.get("clock"))
        least_s = MIN_EVENT_REGION_S if by_events else MIN_REGION_S
        for key in filter(TIMED.fullmatch, record.samples):
            seconds = _median([_slowest(record.samples[key])])
            if seconds is None:
                continue
            region_s = seconds * _loops(record, key.removesuffix("_s"))
            if region_s < LEAST_REGION_S:
                yield Mark("impossible", f"{key.removesuffix('_s')} took less than a function call can")
            elif region_s < least_s:
                yield Mark("short", f"{key.removesuffix('_s')} {units.seconds(region_s)}")


def _parts(group: Group) -> Iterable[Mark]:
    whole = _median(group.processes(f"{WHOLE}_s"))
    sums = [_sums(record.samples) for record in group.records if record.samples.get("forward_s")]
    parts = _median(sums)
    if parts is not None and whole:
        share = parts / whole
        least, most = PARTS_BETWEEN if group.point.get("ranks", 1) == 1 else PARTS_OF_RANKS_BETWEEN
        if not least <= share <= most:
            yield Mark("parts and whole differ", f"the phases' sum is {units.ratio(share)} the step")


def _communication(group: Group) -> Iterable[Mark]:
    whole, bare, waited = (
        _median(group.processes(f"{key}_s")) for key in (WHOLE, "without_communication", "comm_wait")
    )
    if whole and bare and whole < PARTS_BETWEEN[0] * bare:
        share = units.ratio(whole / bare)
        yield Mark("parts and whole differ", f"the step is {share} the step without communication")
    if whole and waited and waited > ABOVE_PEAK * whole:
        yield Mark("impossible", f"the exposed wait is {units.ratio(waited / whole)} the step")


def _memory(group: Group) -> Iterable[Mark]:
    if group.point.get("source") == "predicted":
        return  # what does not fit may well be predicted
    for record in group.records:
        host, device = (_number(record.environment.get(f"{where}_memory_bytes")) for where in ("host", "device"))
        for key, most in (("peak_memory_bytes", device or host), ("peak_host_bytes", host)):
            found = _number(record.scalars.get(key))
            if found and most and found > most:
                told = f"{units.byte_count(found)} of memory, the machine has {units.byte_count(most)}"
                yield Mark("impossible", told)


def _flops(group: Group, peaks: Peaks) -> Iterable[str]:
    """Yield the rates above the peak: that of the whole step, or else those of its passes, or that of an epoch."""
    peak = _peak(group, peaks)
    if not peak:
        return
    whole, work = _median(group.processes(f"{WHOLE}_s")), flops(group)
    if whole and work and work / whole > ABOVE_PEAK * peak:
        yield f"{units.ratio(work / whole / peak)} the measured peak"
        return
    for name in ("forward", "backward"):
        seconds, work = _median(group.processes(f"{name}_s")), group.scalar(f"{name}_flops")
        if seconds and work and work / seconds > ABOVE_PEAK * peak:
            yield f"{name} {units.ratio(work / seconds / peak)} the measured peak"
    seconds, work = _median(group.processes("epoch_s")), group.scalar("epoch_flops")
    on_gpus = bool(group.records) and runs_on_gpu(group.records[0].environment)
    together = peak * (group.point.get("ranks", 1) if on_gpus else 1)  # ranks on a CPU share what was measured
    if seconds and work and work / seconds > ABOVE_PEAK * together:
        yield f"the epoch {units.ratio(work / seconds / together)} the measured peak"


def _peak(group: Group, peaks: Peaks) -> float | None:
    dtype = group.point.get("precision") or group.point.get("compute_dtype")
    if dtype is None and group.records:  # of a cell whose axes do not say
        dtype = group.records[0].protocol.get("precision")
    if dtype is not None or "dtype" not in group.point:
        return peaks.flops_per_s(str(dtype or "fp32"))
    # A kernel may compute float32 in slices of a smaller type.
    return max((rate.per_s for rate in peaks.measured.values()), default=None)


def _bytes(group: Group, peaks: Peaks) -> Iterable[str]:
    """Yield by how much the optimizer moved more bytes than memory can; a model that fits a cache is passed over."""
    seconds, count = _median(group.processes("optimizer_s")), group.scalar("parameters")
    dtype, ranks = group.point.get("parameter_dtype", "fp32"), group.point.get("ranks", 1)
    adamw = all(str(record.protocol.get("optimizer")).lower().startswith("adamw") for record in group.records)
    if not (seconds and count and peaks.copy and adamw) or dtype != "fp32" or ranks != 1:
        return
    copied = 2 * peaks.copy.extent * 2**20
    rate = count * ADAMW_MOVED_BYTES / seconds
    if count * ADAMW_HELD_BYTES >= copied and rate > ABOVE_COPY * peaks.copy.per_s:
        yield f"the optimizer moves {units.ratio(rate / peaks.copy.per_s)} the bytes/s of a copy"


def _rates(group: Group) -> Iterable[str]:
    for rate in peaks_module.rates(group.records):
        environment = group.records[0].environment
        cores = _number(environment.get("cpu_cores")) if environment.get("device") == "cpu" else None
        clock_hz = peaks_module.highest_clock_hz(environment)
        limit = peaks_module.limit(rate, str(environment.get("device_name")), cores, clock_hz)
        if limit is not None and rate.per_s > limit:
            yield f"{rate.operation} {rate.extent} {units.ratio(rate.per_s / limit)} the limit of the device"


def _loops(record: Record, name: str) -> float:
    """Return how many calls were timed as one."""
    loops = record.protocol.get("loops") or record.scalars.get("loops")
    found = loops.get(name) if isinstance(loops, dict) else loops
    return _number(found) or 1.0


def _sums(samples: dict[str, Any]) -> list[float]:
    """Return the sum of the phases of each step, of the slowest rank where there are several."""
    present = [np.atleast_2d(np.asarray(samples[f"{name}_s"])) for name in PARTS if samples.get(f"{name}_s")]
    if len({part.shape for part in present}) != 1:
        return []
    return list(np.sum(present, axis=0).max(axis=0))


def _slowest(samples: Sequence[Any]) -> list[float]:
    return list(np.atleast_2d(np.asarray(samples)).max(axis=0)) if samples else []


def _median(processes: Sequence[Sequence[float]]) -> float | None:
    """Return the median of the processes' medians."""
    found = [float(np.median(samples)) for samples in processes if len(samples)]
    return float(np.median(found)) if found else None


def _number(found: Any) -> float | None:
    return found if isinstance(found, int | float) and not isinstance(found, bool) else None
