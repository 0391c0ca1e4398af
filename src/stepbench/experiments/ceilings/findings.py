"""What the peaks of this machine are, beside the vendor's, and what makes one doubtful."""

from __future__ import annotations

from stepbench.reporting import peaks as peaks_module
from stepbench.reporting import units
from stepbench.reporting.frames import Results

CACHED = 1.5  # a small copy that is so much faster than the largest does not come from memory


def find(results: Results) -> list[str]:
    """Say how fast products and copies are, beside the vendor's figures, and what makes a peak doubtful."""
    rates = peaks_module.rates([record for group in results.groups() for record in group.records])
    peaks = results.peaks
    found = []
    for dtype, peak in peaks.measured.items():
        vendor = peaks.vendor_flops_per_s.get(dtype)
        share = f", {units.percent(peak.per_s / vendor)} of the vendor's figure" if vendor else ""
        extents = [rate.extent for rate in rates if (rate.operation, rate.dtype) == ("matmul", dtype)]
        doubt = "; that is the largest size measured, so the peak may lie higher" if peak.extent == max(extents) else ""
        at = f"at {peak.extent} × {peak.extent}"
        found.append(f"Matrix products in {dtype} reach {units.flop_rate(peak.per_s)} {at}{share}{doubt}.")
    base = peaks.measured.get("fp32")
    for dtype, peak in peaks.measured.items():
        if base is not None and dtype != "fp32":
            found.append(f"The peak in {dtype} is {units.ratio(peak.per_s / base.per_s)} that in fp32.")
    if peaks.copy:
        vendor = peaks.vendor_bytes_per_s
        share = f", {units.percent(peaks.copy.per_s / vendor)} of the vendor's bandwidth" if vendor else ""
        found.append(f"A copy of {peaks.copy.extent} MiB moves {units.byte_rate(peaks.copy.per_s)}{share}.")
        cached = [rate for rate in rates if rate.operation == "copy" and rate.per_s > CACHED * peaks.copy.per_s]
        if cached:
            ratio = units.ratio(max(rate.per_s for rate in cached) / peaks.copy.per_s)
            found.append(f"A smaller copy is up to {ratio} as fast: a cache holds what is copied.")
    return found
