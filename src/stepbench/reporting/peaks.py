"""How fast this machine can be: measured by products and copies, and as its vendor says."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from stepbench.pipeline.records import Record
from stepbench.reporting import statistics

ABOVE_VENDOR = 1.05  # a clock may run above the one that the vendor reckons with
# Where the vendor's figures are unknown, the limit of a CPU core: 2048 FLOPs (AMX) in each of 5e9 cycles, and twice
# 64 bytes read and 64 written.
MOST_FLOPS_PER_CORE_S = 1e13
MOST_BYTES_PER_CORE_S = 1e12


@dataclass(frozen=True)
class Rate:
    """How fast one operation ran at one size.

    Attributes:
        operation: `matmul` or `copy`.
        dtype: of its operands.
        extent: the matrix' dim, or the copied MiB.
        work: FLOPs of one call, or bytes read and written.
        seconds: the summary of one call's duration.
    """

    operation: str
    dtype: str
    extent: int
    work: float
    seconds: statistics.Summary

    @property
    def per_s(self) -> float:
        """FLOP/s or bytes/s at the median."""
        return self.work / self.seconds.median

    @property
    def low(self) -> float | None:
        """The lower end of the interval of `per_s`."""
        return self.work / self.seconds.high if self.seconds.high else None

    @property
    def high(self) -> float | None:
        """The upper end of the interval of `per_s`."""
        return self.work / self.seconds.low if self.seconds.low else None


@dataclass(frozen=True)
class Peaks:
    """What a machine can reach.

    Attributes:
        measured: dtype -> the fastest matrix product.
        copy: the largest copy from device memory to device memory, which no cache holds; None where none was measured.
        vendor_flops_per_s: dtype -> the vendor's dense figure; empty where unknown.
        vendor_bytes_per_s: the vendor's memory bandwidth, or None.
        vendor_source: the document that the vendor's figures stand in, or None.
        highest_clock_hz: the highest that the driver allows this device; None where it does not say.
        flops_per_s_at_highest_clock: dtype -> what the vendor's figure becomes at that clock; empty where unknown.
    """

    measured: Mapping[str, Rate] = field(default_factory=dict)
    copy: Rate | None = None
    vendor_flops_per_s: Mapping[str, float] = field(default_factory=dict)
    vendor_bytes_per_s: float | None = None
    vendor_source: str | None = None
    highest_clock_hz: float | None = None
    flops_per_s_at_highest_clock: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record], device_name: str, cores: float | None) -> Peaks:
        """Return the peaks of a machine.

        Args:
            records: usable records; those without rates of products or copies are passed over.
            device_name: the vendor's name for the device.
            cores: of a CPU; None for another device.
        """
        records = list(records)
        found = rates(records)
        clock_hz = max(filter(None, (highest_clock_hz(record.environment) for record in records)), default=None)
        vendor = vendor_figures(device_name) or {}
        # An impossible rate has a warning in its own table, and is no peak.
        found = [rate for rate in found if rate.per_s <= (limit(rate, device_name, cores, clock_hz) or math.inf)]
        products = sorted((rate for rate in found if rate.operation == "matmul"), key=lambda rate: rate.per_s)
        copies = sorted((rate for rate in found if rate.operation == "copy"), key=lambda rate: rate.extent)
        return cls(
            measured={rate.dtype: rate for rate in products},  # the last of a dtype, the fastest, stays
            copy=copies[-1] if copies else None,
            vendor_flops_per_s=vendor.get("flops_per_s", {}),
            vendor_bytes_per_s=vendor.get("bytes_per_s"),
            vendor_source=vendor.get("source"),
            highest_clock_hz=clock_hz,
            flops_per_s_at_highest_clock=at_clock(vendor, clock_hz),
        )

    def flops_per_s(self, dtype: str) -> float | None:
        """Return the measured peak of a dtype: its fastest product, or that of fp32 where that is faster.

        A CPU without units for bf16 multiplies large bf16 matrices at a hundredth of its speed in fp32, but may compute
        others in fp32: a step was then seen to use 360 % of a "peak".
        """
        if dtype not in self.measured:
            return None
        return max(self.measured[each].per_s for each in (dtype, "fp32") if each in self.measured)


def rates(records: Iterable[Record]) -> list[Rate]:
    """Return the rate of each operation, dtype and size that records hold; replicates are taken together."""
    samples: dict[tuple[str, str, int], list[list[float]]] = {}
    works: dict[tuple[str, str, int], float] = {}
    for record in records:
        for name, values in record.samples.items():
            if match := re.fullmatch(r"((matmul|copy)_(\d+)(?:_mib)?)_s", name):
                key = (match[2], str(record.cell["dtype"]), int(match[3]))
                unit = "flops" if match[2] == "matmul" else "moved_bytes"
                samples.setdefault(key, []).append(values)
                works[key] = float(record.scalars[f"{match[1]}_{unit}"])
    summaries = {key: statistics.summarize(values) for key, values in samples.items()}
    return [Rate(*key, works[key], summary) for key, summary in sorted(summaries.items()) if summary.median > 0]


def limit(rate: Rate, device_name: str, cores: float | None, clock_hz: float | None = None) -> float | None:
    """Return the upper limit of a rate in FLOP/s or bytes/s: the vendor's figure, or that of the given number of cores.

    Args:
        rate: the operation. The vendor's bandwidth is no limit to a copy that a cache may hold.
        device_name: the vendor's name for the device.
        cores: of a CPU; None for another device.
        clock_hz: the highest of the device, which may be above the one that the vendor reckons with, as a real RTX
            5090's is by a fifth; None where it is not known.
    """
    product = rate.operation == "matmul"
    if (vendor := vendor_figures(device_name)) is not None:
        figure = vendor["flops_per_s"].get(rate.dtype) if product else None
        return None if figure is None else max(ABOVE_VENDOR * figure, at_clock(vendor, clock_hz).get(rate.dtype, 0.0))
    return None if cores is None else cores * (MOST_FLOPS_PER_CORE_S if product else MOST_BYTES_PER_CORE_S)


def vendor_figures(device_name: str) -> dict[str, Any] | None:
    """Return `flops_per_s`, `bytes_per_s` and `source` of a device by its vendor's name for it, or None if unknown."""
    return next((device for device in _devices() if re.fullmatch(device["pattern"], device_name.strip())), None)


def at_clock(vendor: Mapping[str, Any], clock_hz: float | None) -> dict[str, float]:
    """Return dtype -> FLOP/s of a device's multiprocessors at a clock; empty where one of the two is not known."""
    if clock_hz is None or not vendor:
        return {}
    return {dtype: vendor["multiprocessors"] * each * clock_hz for dtype, each in vendor["flops_per_cycle"].items()}


def highest_clock_hz(environment: Mapping[str, Any]) -> float | None:
    """Return the highest clock that the driver allows the devices of a record, or None where it does not say."""
    found = environment.get("devices")
    told = (
        [each.get("max_sm_clock_hz") for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
    )
    return max((float(each) for each in told if isinstance(each, int | float) and each > 0), default=None)


@functools.cache
def _devices() -> tuple[dict[str, Any], ...]:
    text = resources.files("stepbench.reporting").joinpath("vendor_peaks.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)["devices"])
