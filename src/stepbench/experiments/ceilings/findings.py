"""Findings about the machine's peaks."""

from __future__ import annotations

from stepbench.reporting import peaks as peaks_module
from stepbench.reporting import units
from stepbench.reporting.findings import Finding, said
from stepbench.reporting.frames import Results

CACHED = 1.5  # a small copy that is so much faster than the largest does not come from memory


def find(results: Results) -> list[Finding]:
    """Return how fast products and copies are, relative to the vendor's figures, and what makes a peak doubtful."""
    groups = results.groups()
    rates = peaks_module.rates([record for group in groups for record in group.records])
    return [
        *said("products", _products(results, rates), [g for g in groups if g.point["operation"] == "matmul"]),
        *said("copies", _copies(results, rates), [g for g in groups if g.point["operation"] == "copy"]),
    ]


def _products(results: Results, rates: list[peaks_module.Rate]) -> list[str]:
    peaks, found = results.peaks, []
    for dtype, peak in peaks.measured.items():
        vendor = peaks.vendor_flops_per_s.get(dtype)
        share = f", {units.percent(peak.per_s / vendor)} of the vendor's figure" if vendor else ""
        extents = [rate.extent for rate in rates if (rate.operation, rate.dtype) == ("matmul", dtype)]
        doubt = "; this is the largest size measured, so the peak may be higher" if peak.extent == max(extents) else ""
        size = f"{peak.extent} × {peak.extent}"
        found.append(f"Matrix products in {dtype} reach {units.flop_rate(peak.per_s)} at {size}{share}{doubt}.")
    base = peaks.measured.get("fp32")
    others = {dtype: peak for dtype, peak in peaks.measured.items() if dtype != "fp32"} if base else {}
    found += [
        f"The peak in {dtype} is {units.ratio(peak.per_s / base.per_s)} that in fp32."
        for dtype, peak in others.items()
        if base
    ]
    return found


def _copies(results: Results, rates: list[peaks_module.Rate]) -> list[str]:
    peaks = results.peaks
    if not peaks.copy:
        return []
    vendor = peaks.vendor_bytes_per_s
    share = f", {units.percent(peaks.copy.per_s / vendor)} of the vendor's bandwidth" if vendor else ""
    found = [f"A copy of {peaks.copy.extent} MiB moves {units.byte_rate(peaks.copy.per_s)}{share}."]
    cached = [rate.per_s for rate in rates if rate.operation == "copy" and rate.per_s > CACHED * peaks.copy.per_s]
    if cached:
        ratio = units.ratio(max(cached) / peaks.copy.per_s)
        found.append(f"A smaller copy is up to {ratio} as fast, because it fits a cache.")
    return found
