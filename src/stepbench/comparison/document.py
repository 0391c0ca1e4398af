"""The comparison of machines as a document: ratios with verdicts, costs, and what cannot be compared and why.

`build` makes it as a value; report/comparison.md and the writeup's section are both made from that.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepbench.comparison import brief, published_table
from stepbench.comparison.brief import Brief
from stepbench.comparison.headlines import Headline
from stepbench.comparison.machines import Machine, provenance
from stepbench.comparison.pairs import Compared, Pair, compare, words
from stepbench.experiments import experiment as experiments
from stepbench.pipeline.records import Record
from stepbench.reporting import markup, statistics, tables, units
from stepbench.reporting.columns import RECORDS, WARNINGS, Column, ratio, ratio_of, value, warned, word
from stepbench.reporting.findings import listing, plural
from stepbench.reporting.points import Row
from stepbench.reporting.prices import Price
from stepbench.reporting.tables import Shown, Table

TITLE = "Machines compared"
MAX_UNLIKE = 12
FOLDER = "report"


@dataclass(frozen=True)
class Part:
    """The comparison with one other machine.

    Attributes:
        machine: its name.
        provenance: who measured it, and when.
        tables: ratios and costs.
        unlike: what both have but not alike: the cell, and the differences.
        alone: a sentence on what only one of the two has.
    """

    machine: str
    provenance: str
    tables: Sequence[Shown]
    unlike: Sequence[tuple[str, str]]
    alone: str


@dataclass(frozen=True)
class Document:
    """The first machine compared with each of the others: a lead, a part for each, and a last sentence."""

    lead: str
    parts: Sequence[Part] = ()
    last: str = ""
    briefs: Sequence[Brief] = ()
    published: Shown | None = None


def build(machines: Sequence[Machine]) -> Document:
    """Return the comparison of the first machine with each of the others."""
    mine, *others = machines
    published = tables.show(published_table.table(others))
    if not mine.records:
        return Document(f"{mine.name} has no measurements that can be compared yet.", published=published)
    if not others:
        return Document("No other machine is known. To add one: stepbench merge <bundle>.")
    found = [(other, compare(mine, other)) for other in others]
    told = [(other, each) for other, each in found if each.pairs or each.unlike or other.refused]
    strangers = [_briefly(other) for other, each in found if not (each.pairs or each.unlike or other.refused)]
    shared = [other.name for other, each in found if each.pairs] or ["none"]
    return Document(
        f"{mine.name} against {plural(len(others), 'machine')}; it shares cells with "
        f"{listing(shared, most=len(shared))}. Two numbers are compared if they have the same cell, definition and "
        "protocol, as far as these are stated. A cell is named by the axes that differ from their defaults.",
        [_part(mine, other, each) for other, each in told],
        f"No cell in common with {listing(strangers, most=len(strangers))}." if strangers else "",
        [brief.of(mine, other, each) for other, each in found],
        published,
    )


def markdown(
    document: Document,
    level: int = 1,
    table: Callable[[Shown, int], str] = lambda shown, level: tables.markdown(shown, FOLDER, level),
) -> str:
    """Return the document as Markdown.

    Args:
        document: what `build` or `read` returned.
        level: of its first heading.
        table: from a table and the level of its heading to Markdown; as in the report's folder if nothing is given.
    """
    head, below = "#" * level, "#" * (level + 1)
    texts = [f"{head} {TITLE}", markup.escape(document.lead)]
    for part in document.parts:
        texts += [f"{below} {markup.escape(part.machine)}", markup.escape(part.provenance)]
        texts += [table(each, level + 2).rstrip() for each in part.tables]
        if part.unlike:
            lines = [f"- {markup.escape(what)}: {markup.escape(why)}" for what, why in part.unlike[:MAX_UNLIKE]]
            more = len(part.unlike) - MAX_UNLIKE
            lines += [f"- and {plural(more, 'more cell')}"] if more > 0 else []
            texts += ["Not comparable, because the settings differ:", "\n".join(lines)]
        texts.append(markup.escape(part.alone))
    texts.append(markup.escape(document.last))
    texts += [table(document.published, level + 1).rstrip()] if document.published else []
    return "\n\n".join(filter(None, texts)) + "\n"


def document(machines: Sequence[Machine]) -> str:
    """Return report/comparison.md: the first machine compared with each of the others."""
    return markdown(build(machines))


def dump(document: Document) -> str:
    """Return the document as JSON, which `read` reads."""
    return json.dumps(dataclasses.asdict(document), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read(file: Path) -> Document:
    """Return the document that was written with `dump`.

    Raises:
        FileNotFoundError: there is none.
    """
    content = json.loads(file.read_text(encoding="utf-8"))
    parts = [Part(**part | {"tables": [tables.load(each) for each in part["tables"]]}) for part in content["parts"]]
    briefs = [
        Brief(**each | {"costs": tuple(each["costs"]), "commands": tuple(each["commands"])})
        for each in content["briefs"]
    ]
    published = None if content["published"] is None else tables.load(content["published"])
    return Document(**content | {"parts": parts, "briefs": briefs, "published": published})


def _part(mine: Machine, other: Machine, found: Compared) -> Part:
    made = (_ratios(mine, other, found), _costs(mine, other, found))
    unlike = [(_named(each.mine), "; ".join(map(str, each.differences))) for each in found.unlike]
    sides = zip((mine, other), found.alone, strict=True)
    alone = [
        f"{plural(len(only), 'result')} only on {machine.name} ({_kinds(only)})" for machine, only in sides if only
    ]
    return Part(
        other.name,
        provenance(other),
        [tables.show(table) for table in made if table is not None],
        unlike,
        f"Not in common: {'; '.join(alone)}." if alone else "",
    )


def _kinds(only: Sequence[Headline]) -> str:
    """Return how many results of each metric there are."""
    names = [each.metric.name for each in only]
    return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))


def _ratios(mine: Machine, other: Machine, found: Compared) -> Table | None:
    if not found.pairs:
        return None
    columns = [
        word("metric"),
        word("cell"),
        value("mine", markup.escape(mine.name), markup.escape),
        value("other", markup.escape(other.name), markup.escape),
        ratio("speedup", "ratio"),
        word("verdict"),
        WARNINGS,
        Column("notes", lambda row: markup.escape(row["notes"]), numeric=False, droppable=True),
    ]
    caption = (
        f"The ratio is the rate of {other.name} over that of {mine.name} (above 1: {other.name} is faster), with its "
        f"{100 * statistics.RATIO_LEVEL:.0f} % interval over process medians. A verdict needs "
        f"{statistics.MIN_PROCESSES} processes a side."
    )
    rows = [_row(pair, (mine, other)) for pair in found.pairs]
    return Table(f"{other.name} over {mine.name}", caption, rows, columns)


def _row(pair: Pair, machines: tuple[Machine, Machine]) -> dict[str, Any]:
    mine, other, comparison = pair.mine, pair.other, pair.comparison
    return {
        "metric": mine.metric.name,
        "cell": words(mine),
        "mine": mine.metric.text(mine.rate),
        "other": other.metric.text(other.rate),
        "mine_per_s": mine.rate,
        "other_per_s": other.rate,
        **ratio_of("speedup", comparison),
        "verdict": comparison.verdict.value,
        **warned(pair.warnings),
        "notes": "; ".join(pair.notes),
        RECORDS: {
            machine.name: _paths(headline, machine)
            for headline, machine in zip((mine, other), machines, strict=True)
            if machine.published is None  # published numbers have no records
        },
    }


def _costs(mine: Machine, other: Machine, found: Compared) -> Table | None:
    """Return what work costs on each machine; None where no price is known."""
    prices = [machine.price for machine in (mine, other)]
    paid = [pair for pair in found.pairs if pair.mine.metric.paid]
    known = [price for price in prices if price is not None]
    if not known or not paid:
        return None
    if len({price.currency for price in known}) > 1:
        amounts = listing([f"{price.per_device_hour:g} {price.currency}" for price in known])
        empty = f"Costs cannot be compared, because the prices are in different currencies: {amounts}."
        return Table("Costs", "", [], empty=empty)
    currency = known[0].currency
    per = f"per {markup.escape(currency)}" if currency else "per unit of money"
    money = f" {markup.escape(currency)}" if currency else ""
    columns = [
        word("metric"),
        word("cell"),
        Column(f"{markup.escape(mine.name)}, {per}", lambda row: _amount(row, "mine")),
        Column(f"{markup.escape(other.name)}, {per}", lambda row: _amount(row, "other")),
        value("per_money_ratio", "ratio", units.ratio),
        Column("cost of an epoch", lambda row: _epoch_costs(row, money), droppable=True),
        Column("break-even price", lambda row: _break_even(row, money)),
    ]
    told = [f"{machine.name}: {_priced(machine.price)}" for machine in (mine, other) if machine.price is not None]
    caption = (
        f"{'; '.join(told)}. Idle devices cost as much. At the break-even price of a device-hour of {other.name}, work "
        f"costs the same on both machines."
    )
    return Table("Costs", caption, [_cost_row(pair, prices) for pair in paid], columns)


def _cost_row(pair: Pair, prices: Sequence[Price | None]) -> dict[str, Any]:
    metric = pair.mine.metric
    row: dict[str, Any] = {"metric": metric.name, "cell": words(pair.mine), "unit": metric.paid}
    for side, headline, price in zip(("mine", "other"), (pair.mine, pair.other), prices, strict=True):
        per_hour = None if price is None else price.per_device_hour * headline.devices
        row[f"{side}_per_money"] = headline.rate * 3600 / per_hour if per_hour else None
        epoch_s = headline.work / headline.rate if metric.is_epoch else None
        row[f"{side}_epoch_cost"] = None if epoch_s is None or per_hour is None else epoch_s / 3600 * per_hour
    amounts = [row[f"{side}_per_money"] for side in ("mine", "other")]
    row["per_money_ratio"] = amounts[1] / amounts[0] if all(amounts) else None
    mine = prices[0]
    row["break_even_per_device_hour"] = None if mine is None else mine.per_device_hour * (
        pair.other.rate / pair.other.devices
    ) / (pair.mine.rate / pair.mine.devices)  # fmt: skip
    return row


def _amount(row: Row, side: str) -> str:
    amount = row[f"{side}_per_money"]
    return units.NOTHING if amount is None else f"{units.count(amount)} {row['unit']}"


def _epoch_costs(row: Row, money: str) -> str:
    costs = [row[f"{side}_epoch_cost"] for side in ("mine", "other")]
    if all(cost is None for cost in costs):
        return ""
    return " / ".join(units.NOTHING if cost is None else f"{cost:.3g}{money}" for cost in costs)


def _break_even(row: Row, money: str) -> str:
    price = row["break_even_per_device_hour"]
    return units.NOTHING if price is None else f"{price:.3g}{money}"


def _priced(price: Price) -> str:
    money = f"{price.per_device_hour:.2f}" + (f" {price.currency}" if price.currency else "")
    return f"{money} per device-hour" + (f" ({price.origin})" if price.origin else "")


def _briefly(machine: Machine) -> str:
    return machine.name if machine.published is None else f"{machine.name} (published)"


def _named(headline: Headline) -> str:
    return f"{headline.metric.name} ({words(headline)})"


def _paths(headline: Headline, machine: Machine) -> list[str]:
    return [f"results/{machine.name}/{record.experiment}/{_stem(record)}.json" for record in headline.records]


def _stem(record: Record) -> str:
    return str(experiments.load(record.experiment).cell(**record.cell).name)
