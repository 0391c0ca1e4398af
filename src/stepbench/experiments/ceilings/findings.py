"""Findings about the machine's peaks."""

from __future__ import annotations

from stepbench.reporting import peaks as peaks_module
from stepbench.reporting import statistics, units
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, said
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group

CACHED = 1.5  # a small copy that is so much faster than the largest does not come from memory


def find(results: Results) -> list[Finding]:
    """Return how fast products and copies are, relative to the vendor's figures, and what makes a peak doubtful."""
    groups = [group for group in results.groups() if group.records]
    return [*_products(results, groups), *_copies(results, groups)]


def _products(results: Results, groups: list[Group]) -> list[Finding]:
    peaks, found = results.peaks, []
    by_dtype = {group.point["dtype"]: group for group in groups if group.point["operation"] == "matmul"}
    known = {dtype: peak for dtype, peak in peaks.measured.items() if dtype in by_dtype}
    for dtype, peak in known.items():
        vendor = peaks.vendor_flops_per_s.get(dtype)
        share = f", {units.percent(peak.per_s / vendor)} of the vendor's figure" if vendor else ""
        extents = [rate.extent for rate in peaks_module.rates(by_dtype[dtype].records)]
        doubt = "; this is the largest size measured, so the peak may be higher" if peak.extent == max(extents) else ""
        size = f"{peak.extent} × {peak.extent}"
        text = f"Matrix products in {dtype} reach {units.flop_rate(peak.per_s)} at {size}{share}{doubt}."
        found += said("products", [text], Evidence.of([by_dtype[dtype]], _key(peak)))
    for dtype, peak in known.items():
        if dtype != "fp32" and "fp32" in known:
            base = known["fp32"]
            text = f"The peak in {dtype} is {units.ratio(peak.per_s / base.per_s)} that in fp32."
            sides = (by_dtype["fp32"], by_dtype[dtype])
            seconds_per_flop = [
                [median / rate.work for median in statistics.medians(group.processes(_key(rate)))]
                for group, rate in zip(sides, (base, peak), strict=True)
            ]  # at the size that is the fastest of each
            comparison = statistics.compare(seconds_per_flop[0], seconds_per_flop[1])
            found += said("products", [text], Evidence.of(sides, *map(_key, (base, peak)), comparison=comparison))
    return found


def _copies(results: Results, groups: list[Group]) -> list[Finding]:
    peak, vendor = results.peaks.copy, results.peaks.vendor_bytes_per_s
    group = next((group for group in groups if group.point["operation"] == "copy"), None)
    if peak is None or group is None:
        return []
    share = f", {units.percent(peak.per_s / vendor)} of the vendor's bandwidth" if vendor else ""
    text = f"A copy of {peak.extent} MiB moves {units.byte_rate(peak.per_s)}{share}."
    found = said("copies", [text], Evidence.of([group], _key(peak)))
    cached = [rate for rate in peaks_module.rates(group.records) if rate.per_s > CACHED * peak.per_s]
    if cached:
        fastest = max(cached, key=lambda rate: rate.per_s)
        text = f"A smaller copy is up to {units.ratio(fastest.per_s / peak.per_s)} as fast, because it fits a cache."
        found += said("copies", [text], Evidence.of([group], _key(peak), _key(fastest)))
    return found


def _key(rate: peaks_module.Rate) -> str:
    return f"{rate.operation}_{rate.extent}{'_mib' if rate.operation == 'copy' else ''}_s"
