"""Findings about collectives."""

from __future__ import annotations

from stepbench.reporting import units
from stepbench.reporting.columns import axis_words
from stepbench.reporting.evidence import Evidence
from stepbench.reporting.findings import Finding, listing, said
from stepbench.reporting.frames import Results
from stepbench.reporting.message_fits import Fit, bus_bytes_per_s, fits, groups_of, message_bytes
from stepbench.reporting.points import Group, compared

GOOD_FIT = 0.25  # of the measured time
KEY = "call_s"


def find(results: Results) -> list[Finding]:
    """Return the highest bandwidth, latency and bandwidth of each operation, and how well they fit."""
    fitted = fits(results)
    found = _highest(results)
    for each in fitted:
        found += _described(each, groups_of(results, each))
    return found + _residuals(results, fitted)


def _highest(results: Results) -> list[Finding]:
    known = [(group, summary) for group in results.groups() if (summary := group.summary(KEY))]
    if not known:
        return []
    rates = sorted(
        ((bus_bytes_per_s(group, summary.median), group) for group, summary in known), key=lambda each: -each[0]
    )
    rate, best = rates[0]
    text = (
        f"The highest bus bandwidth is {units.byte_rate(rate)}, by {axis_words(best.point['operation'])} of "
        f"{units.byte_count(message_bytes(best))} on {best.point['ranks']} ranks ({best.point['backend']})."
    )
    second = rates[1][1] if len(rates) > 1 else None
    comparison = compared(second, best, KEY, lambda group: bus_bytes_per_s(group, 1.0))
    return said("bandwidth", [text], Evidence.ranking([group for _, group in rates], KEY, comparison))


def _described(each: Fit, groups: list[Group]) -> list[Finding]:
    name = f"{axis_words(each.operation).capitalize()} on {each.ranks} ranks ({each.backend})"
    known = [(group, summary) for group in groups if (summary := group.summary(KEY))]
    smallest, summary = min(known, key=lambda pair: message_bytes(pair[0]))
    size, fitted_s = message_bytes(smallest), each.seconds(message_bytes(smallest))
    took = f"{units.byte_count(size)} took {units.seconds(summary.median)}"
    if abs(fitted_s / summary.median - 1) > GOOD_FIT:
        text = (
            f"{name}: the fit gives {units.byte_rate(each.bytes_per_s)} and does not describe small messages: {took}, "
            f"the fit gives {units.seconds(fitted_s)}."
        )
    elif not each.latency_s:
        text = f"{name}: the fit gives {units.byte_rate(each.bytes_per_s)}; the latency is lost in noise."
    else:
        text = (
            f"{name}: the fit gives {units.seconds(each.latency_s)} latency and {units.byte_rate(each.bytes_per_s)}; "
            f"{took}. Latency is half of the time at {units.byte_count(each.latency_s * each.bytes_per_s)}."
        )
    return said("fit", [text], Evidence.of([group for group, _ in known], KEY))


def _residuals(results: Results, fitted: list[Fit]) -> list[Finding]:
    judged = [(each, each.residual_ratio) for each in fitted if each.residual_ratio is not None]
    if not judged:
        return []
    bad = [(each, ratio) for each, ratio in judged if ratio > GOOD_FIT]
    text = (
        "Latency plus bandwidth fits every operation with three or more message sizes to within "
        f"{units.percent(max(ratio for _, ratio in judged))}."
    )
    if bad:
        names = [f"{axis_words(each.operation)} (off by up to {units.percent(ratio)})" for each, ratio in bad]
        text = f"Latency plus bandwidth fits badly: {listing(names)}. Predictions from such a fit are as uncertain."
    groups = [group for each, _ in judged for group in groups_of(results, each)]
    return said("residuals", [text], Evidence.of(groups, KEY))
