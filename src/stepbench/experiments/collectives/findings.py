"""Findings about collectives."""

from __future__ import annotations

from stepbench.reporting import units
from stepbench.reporting.columns import axis_words
from stepbench.reporting.findings import Finding, listing, said
from stepbench.reporting.frames import Results
from stepbench.reporting.message_fits import Fit, bus_bytes_per_s, fits, groups_of, message_bytes
from stepbench.reporting.points import Group

GOOD_FIT = 0.25  # of the measured time


def find(results: Results) -> list[Finding]:
    """Return the highest bandwidth, latency and bandwidth of each operation, and how well they fit."""
    fitted = fits(results)
    found = said("bandwidth", *_highest(results))
    for each in fitted:
        groups = groups_of(results, each)
        found += said("fit", [_described(each, groups)], groups)
    return found + said(
        "residuals", _residuals(fitted), [group for each in fitted for group in groups_of(results, each)]
    )


def _highest(results: Results) -> tuple[list[str], list[Group]]:
    known = [(group, summary) for group in results.groups() if (summary := group.summary("call_s"))]
    if not known:
        return [], []
    rates = [(bus_bytes_per_s(group, summary.median), group) for group, summary in known]
    rate, best = max(rates, key=lambda each: each[0])
    return [
        f"The highest bus bandwidth is {units.byte_rate(rate)}, by {axis_words(best.point['operation'])} of "
        f"{units.byte_count(message_bytes(best))} on {best.point['ranks']} ranks ({best.point['backend']})."
    ], [best]


def _described(each: Fit, groups: list[Group]) -> str:
    name = f"{axis_words(each.operation).capitalize()} on {each.ranks} ranks ({each.backend})"
    if not each.latency_s:
        return f"{name}: the fit gives {units.byte_rate(each.bytes_per_s)}; the latency is lost in noise."
    half = each.latency_s * each.bytes_per_s
    smallest = min((group for group in groups if group.records), key=message_bytes)
    summary = smallest.summary("call_s")
    really = (
        f"; {units.byte_count(message_bytes(smallest))} really took {units.seconds(summary.median)}" if summary else ""
    )
    return (
        f"{name}: the fit gives {units.seconds(each.latency_s)} latency and "
        f"{units.byte_rate(each.bytes_per_s)}{really}. Latency is half of the time at {units.byte_count(half)}."
    )


def _residuals(fitted: list[Fit]) -> list[str]:
    judged = [each for each in fitted if each.residual_ratio is not None]
    bad = [each for each in judged if (each.residual_ratio or 0) > GOOD_FIT]
    if not judged:
        return []
    if not bad:
        worst = max(each.residual_ratio or 0 for each in judged)
        return [
            "Latency plus bandwidth fits every operation with three or more message sizes to within "
            f"{units.percent(worst)}."
        ]
    names = [f"{axis_words(each.operation)} (off by up to {units.percent(each.residual_ratio)})" for each in bad]
    return [f"Latency plus bandwidth fits badly: {listing(names)}. Predictions from such a fit are as uncertain."]
