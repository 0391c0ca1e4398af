"""Warnings from the conditions that a record holds: throttling, battery, other load, paging, launches.

What a record does not hold gives no warning. A CPU's frequency is not looked at: before and after a measurement it is
that of an idle machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stepbench.measure.devices import KINDS
from stepbench.pipeline.records import Record
from stepbench.reporting import units
from stepbench.reporting.marks import Mark

# Of the host's cores, on average over a measurement: 0 to 5 % in 59 cells on two cores with little but Snakemake
# running, and 17 % or more in 11 cells beside other work. A CPU's measurement uses all cores; a GPU's host launches.
OTHERS_SHARE = 0.10
OTHERS_SHARE_BESIDE_GPU = 0.50
OTHERS_CPU_S = 0.2  # the kernel counts hundredths of a second on each core; below this it is rounding
HELD_BACK_SHARE = 0.01  # of the time in which a GPU kept its clocks down, or a container's quota stopped the process
CLOCK_SHARE = 0.90  # of the clock before, at which a busy GPU runs slower than it did

LAUNCH_SHARE = 0.95  # of a region's time, after which the host had launched its last kernel
PAGING_SHARE = 0.05  # of the timed regions, spent by the kernel on new pages
# What the kernel spends on one fault at most; 1.5 to 1.8 us were measured on a virtual machine. The rest of the system
# time, such as that of Gloo's sockets, belongs to the work. A fault in huge pages takes longer and is underestimated.
MOST_PER_FAULT_S = 2e-6

IDLE = 0x1
# NVML's bits for clocks that are lower than asked for; idleness and clocks that a person has set are none of them.
THROTTLE_REASONS = {
    0x4: "its power limit",
    0x8: "a hardware slowdown",
    0x20: "heat",
    0x40: "heat",
    0x80: "the power supply's brake",
}


def runs_on_gpu(environment: Mapping[str, Any]) -> bool:
    """Return whether a record's environment is that of a GPU."""
    kind = KINDS.get(str(environment.get("device")))
    return kind is not None and kind.is_gpu


def find(records: Sequence[Record]) -> tuple[Mark, ...]:
    """Return the warnings of this module of a point's records, one record for each process."""
    found = []
    asked = {
        "throttled": _throttled,
        "on battery": _on_battery,
        "disturbed": _disturbed,
        "paging": _paging,
        "launch bound": _launch_bound,
    }
    for kind, ask in asked.items():
        told = [causes for record in records if (causes := list(ask(record)))]
        if told:
            where = f" in {len(told)} of {len(records)} processes" if len(records) > 1 else ""
            found.append(Mark(kind, ", ".join(told[0]) + where))
    return tuple(found)


def _throttled(record: Record) -> Iterable[str]:
    before, after = (_mapping(record.environment.get(when)) for when in ("before", "after"))
    if _increase(before, after, "cpu_throttle_count"):
        yield "the CPU by heat"
    during = _mapping(record.environment.get("during"))
    stopped_s, wall_s = _number(during, "stopped_s"), _number(during, "wall_s")
    if stopped_s and wall_s and stopped_s > HELD_BACK_SHARE * wall_s:
        yield f"by a quota of cores for {units.percent(min(stopped_s / wall_s, 1.0))} of the time"
    causes: dict[str, None] = {}
    gpus_during = list(map(_mapping, _list(record.environment.get("gpus_during"))))
    # What holds clocks down at rest, before and after, says nothing of a GPU that was seen at work.
    at_work = any(_number(gpu, "busy_samples") for gpu in gpus_during)
    for gpu in gpus_during:
        seen = int(_number(gpu, "throttle_reasons_bitmask") or 0)
        causes |= dict.fromkeys(f"by {cause}" for bit, cause in THROTTLE_REASONS.items() if seen & bit)
    for first, last in zip(_gpus(before), _gpus(after), strict=False):
        reasons = _reasons(first) | _reasons(last)
        at_rest = 0 if at_work else reasons
        causes |= dict.fromkeys(f"by {cause}" for bit, cause in THROTTLE_REASONS.items() if at_rest & bit)
        for key, cause in (("held_back_by_power_s", "its power limit"), ("held_back_by_heat_s", "heat")):
            share = _increase(first, last, key) / record.duration_s if record.duration_s else 0.0
            if share > HELD_BACK_SHARE:
                causes.pop(f"by {cause}", None)
                causes[f"by {cause} for {units.percent(min(share, 1.0))} of the time"] = None
        clock_before, clock_after = (_number(state, "sm_clock_hz") or 0.0 for state in (first, last))
        if not (at_work or reasons & IDLE) and 0 < clock_after < CLOCK_SHARE * clock_before:
            causes[f"from {clock_before / 1e6:.0f} to {clock_after / 1e6:.0f} MHz"] = None
    yield from causes


def _on_battery(record: Record) -> Iterable[str]:
    readings = [_mapping(record.environment.get(when)).get("on_battery") for when in ("before", "after")]
    if True in readings:
        yield "for a part of the time" if False in readings else "throughout"


def _disturbed(record: Record) -> Iterable[str]:
    seen = [_gpus(_mapping(record.environment.get(when))) for when in ("before", "after")]
    others = {str(process) for states in seen for state in states for process in _list(state.get("processes"))}
    if others:
        yield f"{len(others)} other process{'es' if len(others) > 1 else ''} on the device"
    load = _mapping(record.environment.get("during"))
    wall_s, cores = _number(load, "wall_s"), _number(load, "cores")
    if not wall_s or not cores:
        return
    on_gpu = runs_on_gpu(record.environment)
    shares = {
        "{} of the CPU used by other processes": _number(load, "others_cpu_s"),
        "{} CPU steal": _number(load, "stolen_cpu_s"),
    }
    taken_s = sum(filter(None, shares.values()))
    allowed = OTHERS_SHARE_BESIDE_GPU if on_gpu else OTHERS_SHARE
    if taken_s > OTHERS_CPU_S and taken_s > allowed * wall_s * cores:
        words, most = max(shares.items(), key=lambda share: share[1] or 0.0)
        yield words.format(units.percent((most or 0.0) / wall_s / cores))


def _paging(record: Record) -> Iterable[str]:
    """Yield what share of which timed regions went into new pages: over all of them, because one is counted roughly."""
    for key in record.samples:
        name = key.removesuffix("_page_faults")
        if name == key:
            continue
        wall_s, system_s, faults = (
            _total(record.samples, f"{name}_{unit}") for unit in ("s", "system_s", "page_faults")
        )
        share = min(system_s, MOST_PER_FAULT_S * faults) / wall_s if wall_s else 0.0
        if share > PAGING_SHARE:
            yield f"{name} {units.percent(share)}"
    retries, calls = (int(_number(record.scalars, key) or 0) for key in ("allocator_retries", "device_allocations"))
    if retries:
        yield f"{retries} allocator {'retry' if retries == 1 else 'retries'}"
    if calls:
        yield f"{calls} cudaMalloc {'call' if calls == 1 else 'calls'}"


def _launch_bound(record: Record) -> Iterable[str]:
    """Yield the regions whose launch took about as long as they did, unless it was over before they began."""
    for key, launched_s in record.samples.items():
        name = key.removesuffix("_host_s")
        whole_s = record.samples.get(f"{name}_s")
        if name == key or not whole_s or _number(record.scalars, f"{name}_held_ratio") == 1:
            continue
        share = sum(launched_s) / sum(whole_s) if sum(whole_s) else 0.0
        if share > LAUNCH_SHARE:
            yield f"{name} {units.percent(min(share, 1.0))}"


def _total(samples: Mapping[str, Any], key: str) -> float:
    """Return the sum of samples, of all ranks together where there are several."""
    return float(sum(sum(value) if isinstance(value, list) else value for value in samples.get(key, [])))


def _reasons(gpu: Mapping[str, Any]) -> int:
    """Return the bits of a GPU's reading; without them it may have been idle."""
    found = _number(gpu, "throttle_reasons_bitmask")
    return IDLE if found is None else int(found)


def _increase(first: Mapping[str, Any], last: Mapping[str, Any], key: str) -> float:
    before, after = _number(first, key), _number(last, key)
    return 0.0 if before is None or after is None else after - before


# A record may come from elsewhere: a value that is not a number counts as unknown.


def _gpus(state: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [_mapping(gpu) for gpu in _list(state.get("gpus"))]


def _list(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def _mapping(found: Any) -> Mapping[str, Any]:
    return found if isinstance(found, Mapping) else {}


def _number(found: Mapping[str, Any], key: str) -> float | None:
    value = found.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
