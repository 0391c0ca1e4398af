"""What is found about collectives, in sentences."""

from __future__ import annotations

from stepbench.reporting import units
from stepbench.reporting.findings import listing
from stepbench.reporting.frames import Results
from stepbench.reporting.message_fits import Fit, bus_bytes_per_s, fits, message_bytes
from stepbench.reporting.tables import axis_words

GOOD_FIT = 0.25  # of the measured time


def find(results: Results) -> list[str]:
    """Return the best bandwidth, what a call costs however small, and how well the fits describe the messages."""
    known = [(group, summary) for group in results.groups() if (summary := group.summary("call_s"))]
    sentences = []
    if known:
        rates = [(bus_bytes_per_s(group, summary.median), group) for group, summary in known]
        rate, best = max(rates, key=lambda each: each[0])
        sentences.append(
            f"The highest bus bandwidth is {units.byte_rate(rate)}, by {axis_words(best.point['operation'])} of "
            f"{units.byte_count(message_bytes(best))} on {best.point['ranks']} ranks ({best.point['backend']})."
        )
    fitted = fits(results)
    sentences += [_described(each) for each in fitted]
    return sentences + _residuals(fitted)


def _described(each: Fit) -> str:
    name = f"{axis_words(each.operation).capitalize()} on {each.ranks} ranks ({each.backend})"
    if not each.latency_s:
        return f"{name} runs at {units.byte_rate(each.bytes_per_s)}; no latency can be told from the noise."
    half = each.latency_s * each.bytes_per_s
    return (
        f"{name} costs {units.seconds(each.latency_s)} however small, and then {units.byte_rate(each.bytes_per_s)}; "
        f"a message of {units.byte_count(half)} spends half of its time on latency."
    )


def _residuals(fitted: list[Fit]) -> list[str]:
    judged = [each for each in fitted if each.residual_ratio is not None]
    bad = [each for each in judged if (each.residual_ratio or 0) > GOOD_FIT]
    if not judged:
        return []
    if not bad:
        worst = max(each.residual_ratio or 0 for each in judged)
        return [f"Two numbers describe every operation with three or more sizes to within {units.percent(worst)}."]
    names = [f"{axis_words(each.operation)} ({units.percent(each.residual_ratio)})" for each in bad]
    return [
        f"Two numbers do not describe {listing(names)}: in brackets how far the fit is off at the worst message. "
        "What is predicted from such a fit is worth as much."
    ]
