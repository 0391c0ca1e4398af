"""Time and money that training costs on this machine, from the fastest steps that were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stepbench.reporting import columns as col
from stepbench.reporting import markup, units
from stepbench.reporting.prices import Price
from stepbench.reporting.steps import token_energy_joules
from stepbench.reporting.summary import Speed
from stepbench.reporting.tables import Table
from stepbench.reporting.units import Unit

BILLION = 10**9
LONG = (Unit("years", 365 * 86400.0), Unit("days", 86400.0), Unit("h", 3600.0), Unit("min", 60.0), Unit("s", 1.0))
TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022 (arXiv:2203.15556), where config.yaml has no budget


def table(speeds: Sequence[Speed], price: Price | None, machine: str, settings: Mapping[str, Any]) -> Table:
    """Return what a billion tokens and a training budget cost, a row for each size and context.

    Args:
        speeds: the fastest ways.
        price: of one device, or None where it is unknown.
        machine: its name.
        settings: the configuration, with `budget`.
    """
    ratio = settings.get("budget", {}).get("tokens_per_parameter", TOKENS_PER_PARAMETER)
    rows = [_row(each, price, ratio) for each in speeds]
    currency = markup.escape(price.currency) if price else ""
    columns = [
        col.size(),
        col.value("context"),
        col.word("way"),
        col.value("tokens_per_s", "tokens/s", units.number),
        col.value("billion_s", "a billion tokens take", long),
        *([col.value("billion_cost", f"and cost ({currency})", _money)] if price else []),
        col.value("billion_joules", "energy of a billion tokens", _kilowatt_hours, droppable=True),
        col.value("budget_tokens", "training budget (tokens)", units.count),
        col.value("budget_s", "it takes", long),
        *([col.value("budget_cost", f"and costs ({currency})", _money)] if price else []),
    ]
    caption = f"At the median speed, on one device. The training budget is {ratio:g} tokens for each parameter. "
    return Table("What it costs", caption + _priced(price, machine), rows, columns, "No speed, no costs.")


def long(seconds: float | None) -> str:
    """Return a duration such as `3.4 days`."""
    return units.quantity(seconds, LONG)


def _row(speed: Speed, price: Price | None, tokens_per_parameter: float) -> dict[str, Any]:
    parameters = speed.group.scalar("parameters")
    tokens = None if parameters is None else tokens_per_parameter * parameters
    billion_s = BILLION / speed.tokens_per_s
    budget_s = None if tokens is None else tokens / speed.tokens_per_s
    per_s = None if price is None else price.per_device_hour / 3600
    per_token = token_energy_joules(speed.group)
    return {
        **col.facts(speed.group, speed.step.marks),
        "parameters": parameters,
        "way": speed.way,
        "tokens_per_s": speed.tokens_per_s,
        "billion_s": billion_s,
        "billion_cost": None if per_s is None else billion_s * per_s,
        "billion_joules": None if per_token is None else BILLION * per_token,
        "budget_tokens": tokens,
        "budget_s": budget_s,
        "budget_cost": None if per_s is None or budget_s is None else budget_s * per_s,
    }


def _kilowatt_hours(joules: float | None) -> str:
    return "" if joules is None else f"{units.number(joules / 3.6e6)} kWh"


def _money(amount: float | None) -> str:
    return units.NOTHING if amount is None else f"{amount:,.2f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def _priced(price: Price | None, machine: str) -> str:
    if price is None:
        return f"config.yaml has no price of {machine} among its prices, so there is no money here."
    kind = "bought, with energy" if price.purchase is not None else "rented"
    about = "; ".join(filter(None, (kind, price.origin)))
    return f"A device-hour costs {price.per_device_hour:.3g} {price.currency} ({about})."
