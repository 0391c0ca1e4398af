"""The comparison with another machine in brief: how many times as fast, for what money, and when buying pays."""

from __future__ import annotations

import dataclasses
import math
import statistics
from dataclasses import dataclass

from stepbench.comparison.headlines import Headline
from stepbench.comparison.machines import Machine
from stepbench.comparison.pairs import Compared, Pair, words
from stepbench.experiments import experiment as experiments
from stepbench.reporting import units
from stepbench.reporting.findings import plural
from stepbench.reporting.prices import Price

STEP = "whole training step"
BILLION = 10**9
SHOWN_COMMANDS = 3


@dataclass(frozen=True)
class Brief:
    """How another machine stands against this one.

    Attributes:
        machine: its name.
        shared: how many results in tokens both have.
        ratio: the geometric mean of its rates over this machine's; None where nothing is shared.
        cell: the shared result that takes the longest, in words.
        costs: of a billion tokens there, on this machine and on the other, None where the price is unknown.
        currency: of the costs; empty where they are in different ones or unknown.
        break_even_hours: after how many hours of work the machine that is bought has cost as much as the same work on
            the other; None where none or both are bought, or where it never does.
        commands: what to run on this machine, so that there is something to compare.
    """

    machine: str
    shared: int = 0
    ratio: float | None = None
    cell: str = ""
    costs: tuple[float | None, float | None] = (None, None)
    currency: str = ""
    break_even_hours: float | None = None
    commands: tuple[str, ...] = ()


def of(mine: Machine, other: Machine, found: Compared) -> Brief:
    """Return the comparison of two machines in brief."""
    shared = [pair for pair in found.pairs if pair.mine.metric.paid == "tokens"]
    whole = [pair for pair in shared if pair.mine.metric.name == STEP]
    if not shared:
        return Brief(other.name, commands=_commands(found.alone[1]))
    pairs = whole or shared
    ratio = statistics.geometric_mean([pair.other.rate / pair.mine.rate for pair in pairs])
    longest = min(pairs, key=lambda pair: pair.mine.rate)
    currencies = {price.currency for price in (mine.price, other.price) if price is not None}
    same = len(currencies) == 1
    return Brief(
        other.name,
        len(pairs),
        ratio,
        words(longest.mine),
        (_cost(longest.mine, mine.price), _cost(longest.other, other.price)) if same else (None, None),
        currencies.pop() if same else "",
        _break_even_hours(longest, mine.price, other.price) if same else None,
    )


def sentence(brief: Brief, here: str) -> str:
    """Return a brief in a sentence or two of plain text; the commands are not in it."""
    if brief.ratio is None:
        return f"Nothing that {brief.machine} has measured in tokens can be compared with {here}."
    text = (
        f"{brief.machine} runs at {units.ratio(brief.ratio)} the speed of {here} (geometric mean of "
        f"{plural(brief.shared, 'result')})."
    )
    known = [
        f"{cost:,.2f} {brief.currency} on {name}"
        for name, cost in zip((here, brief.machine), brief.costs, strict=True)
        if cost is not None
    ]
    if known:
        text += f" A billion tokens ({brief.cell}) cost {' and '.join(known)}."
    if brief.break_even_hours is not None:
        text += f" Buying pays after {brief.break_even_hours:,.0f} hours of work."
    elif len(known) < 2:
        text += " For costs and a break-even both need a price in one currency under `prices`."
    return text


def _cost(headline: Headline, price: Price | None) -> float | None:
    if price is None:
        return None
    return BILLION / headline.rate / 3600 * price.per_device_hour * headline.devices


def _break_even_hours(pair: Pair, mine: Price | None, other: Price | None) -> float | None:
    """Return the hours of work after which a purchase has cost as much as the same work on the other machine."""
    sides = [(mine, pair.mine, other, pair.other), (other, pair.other, mine, pair.mine)]
    for bought, ours, rented, theirs in sides:
        if bought is None or rented is None or bought.purchase is None or rented.purchase is not None:
            continue
        same_work = ours.rate / theirs.rate * rented.per_device_hour * theirs.devices
        saved = same_work - bought.energy_per_hour * ours.devices
        return bought.purchase * ours.devices / saved if saved > 0 and math.isfinite(saved) else None
    return None


def _commands(alone: tuple[Headline, ...]) -> tuple[str, ...]:
    """Return commands that measure here what the other machine has, the first few."""
    paid = [each for each in alone if each.metric.paid == "tokens"]
    found = []
    for each in paid:
        cell_type = experiments.load(each.metric.experiment).cell
        fields = {field.name: field for field in dataclasses.fields(cell_type)}
        record = each.records[0].cell
        axes = [f"{axis}={value}" for axis, value in record.items() if value != fields[axis].default]
        found.append(f"stepbench measure {each.metric.experiment} {','.join(axes)}")
    return tuple(dict.fromkeys(found))[:SHOWN_COMMANDS]
