"""Machines side by side: ratios with verdicts, what work costs on each, and what cannot be compared and why.

Only like is compared with like: the same metric at the same cell, made from the same definition. A published number is
held against what its document states; what that leaves open is said beside it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stepbench.comparison.headlines import Headline, headlines
from stepbench.comparison.machines import Machine, Price
from stepbench.experiments import experiment as experiments
from stepbench.pipeline import fingerprint
from stepbench.pipeline.records import Record
from stepbench.reporting import conditions, markup, statistics, units
from stepbench.reporting.findings import listing, plural
from stepbench.reporting.statistics import Comparison
from stepbench.reporting.tables import Column, Row, Table, axis_text, frame, markdown, value

TITLE = "Machines compared"
# Where data lies belongs to the machine, not to what was asked of it.
OF_THE_MACHINE = ("shards_dir",)
STATED = ("warmup_steps", "measured_steps", "seed")
MAX_UNLIKE = 12
RESULTS = "../results"  # from report/


@dataclass(frozen=True)
class Pair:
    """One headline on two machines.

    Attributes:
        mine, other: of the first machine and of the second.
        comparison: of the second against the first: above 1 the second is faster.
        notes: what a reader should know.
    """

    mine: Headline
    other: Headline
    comparison: Comparison
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Compared:
    """What came of holding two machines against each other.

    Attributes:
        pairs: what can be compared.
        unlike: what was measured on both, but not alike: what it is, and in what it differs.
        alone: how many headlines only the first and only the second has.
    """

    pairs: tuple[Pair, ...]
    unlike: tuple[tuple[str, str], ...]
    alone: tuple[int, int]


def compare(mine: Machine, other: Machine) -> Compared:
    """Hold the headlines of two machines against each other."""
    sides = [{each.key: each for each in headlines(machine.records)} for machine in (mine, other)]
    pairs, unlike = [], []
    for key, first in sides[0].items():
        second = sides[1].get(key)
        if second is None:
            continue
        if reasons := _unlike(first, second):
            unlike.append((_named(first), "; ".join(reasons)))
        else:
            found = statistics.compare(first.medians_s, second.medians_s)
            pairs.append(Pair(first, second, found, _notes(first, second)))
    alone = (len(sides[0].keys() - sides[1].keys()), len(sides[1].keys() - sides[0].keys()))
    return Compared(tuple(pairs), tuple(unlike), alone)


def document(machines: Sequence[Machine]) -> str:
    """Return report/comparison.md: the first machine against each of the others."""
    return f"# {TITLE}\n\n{body(machines)}"


def body(machines: Sequence[Machine]) -> str:
    """Return the comparison without its heading, a part of the second level for each other machine."""
    mine, *others = machines
    if not mine.records:
        return f"Nothing that {markup.escape(mine.name)} has measured can be compared yet.\n"
    if not others:
        return "No other machine is known: `python -m stepbench merge` brings in the bundle of one.\n"
    found = [(other, compare(mine, other)) for other in others]
    parts = [_lead(mine, others, [other for other, each in found if each.pairs])]
    parts += [_part(mine, other, each) for other, each in found if each.pairs or each.unlike or other.refused]
    if strangers := [other for other, each in found if not (each.pairs or each.unlike or other.refused)]:
        parts.append(f"No cell in common with {_and([_briefly(other) for other in strangers])}.")
    return "\n\n".join(parts).strip() + "\n"


def _lead(mine: Machine, others: Sequence[Machine], shared: Sequence[Machine]) -> str:
    alike = f"with {_and([markup.escape(other.name) for other in shared])}" if shared else "with none of them"
    return (
        f"{markup.escape(mine.name)} against {plural(len(others), 'machine')}; it has cells in common {alike}. "
        "Only like is compared with like: the same cell, from the same definition and protocol, as far as they are "
        "stated. Of a cell the axes are named that are not at their defaults."
    )


def _briefly(machine: Machine) -> str:
    name = markup.escape(machine.name)
    return name if machine.published is None else f"{name} (published)"


def _and(words: Sequence[str]) -> str:
    """Return all words in one sentence, however many."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _part(mine: Machine, other: Machine, found: Compared) -> str:
    texts = [f"## {markup.escape(other.name)}", _provenance(other)]
    tables = (_ratios(mine, other, found), _costs(mine, other, found))
    texts += [markdown(table).rstrip() for table in tables if table is not None]
    if found.unlike:
        shown = [f"- {markup.escape(what)}: {markup.escape(why)}" for what, why in found.unlike[:MAX_UNLIKE]]
        more = len(found.unlike) - MAX_UNLIKE
        shown += [f"- and {plural(more, 'more cell')}" for _ in range(more > 0)]
        texts += ["Not comparable, because they are not alike:", "\n".join(shown)]
    one, two = found.alone
    texts.append(
        f"Measured on one of them alone: {plural(one, 'headline')} on {markup.escape(mine.name)}, "
        f"{plural(two, 'headline')} on {markup.escape(other.name)}."
    )
    return "\n\n".join(text for text in texts if text)


def _provenance(machine: Machine) -> str:
    if machine.published is not None:
        note = f" {markup.escape(machine.note)}" if machine.note else ""
        return f"**Published**, not measured by stepbench: {markup.escape(machine.published)}.{note}"
    commits = sorted({str(record.environment.get("git_commit"))[:10] for record in machine.records})
    days = sorted({record.started[:10] for record in machine.records})
    refused = f" {plural(len(machine.refused), 'record')} could not be believed." if machine.refused else ""
    if not days:
        return f"No record of it can be believed.{refused}"
    last = f" to {days[-1]}" if len(days) > 1 else ""
    return f"Measured by stepbench from {days[0]}{last}, at commit {listing(commits)}.{refused}"


def _ratios(mine: Machine, other: Machine, found: Compared) -> Table | None:
    if not found.pairs:
        return None
    rows = [_row(pair, (mine, other)) for pair in found.pairs]
    columns = [
        value("metric", text=markup.escape, numeric=False),
        value("cell", text=markup.escape, numeric=False),
        Column(markup.escape(mine.name), lambda row: row["mine"]),
        Column(markup.escape(other.name), lambda row: row["other"]),
        Column("ratio", lambda row: units.ratio(row["speedup_ratio"], row["low_ratio"], row["high_ratio"])),
        value("verdict", text=axis_text, numeric=False),
        Column("notes", lambda row: markup.escape(row["notes"]), numeric=False, droppable=True),
        value("links", "records", numeric=False),
    ]
    caption = (
        f"The ratio is the rate of {other.name} over that of {mine.name}: above 1, {other.name} is faster; in brackets "
        f"its {100 * statistics.RATIO_LEVEL:.0f} % interval over process medians. A verdict needs "
        f"{statistics.MIN_PROCESSES} processes a side."
    )
    return Table("ratios", f"{other.name} over {mine.name}", caption, frame(rows), columns)


def _row(pair: Pair, machines: tuple[Machine, Machine]) -> dict[str, Any]:
    mine, other, comparison = pair.mine, pair.other, pair.comparison
    return {
        "metric": mine.metric.name,
        "cell": _cell_words(mine),
        "mine": mine.metric.text(mine.rate),
        "other": other.metric.text(other.rate),
        "mine_per_s": mine.rate,
        "other_per_s": other.rate,
        "speedup_ratio": comparison.ratio,
        "low_ratio": comparison.low,
        "high_ratio": comparison.high,
        "verdict": comparison.verdict.value,
        "notes": "; ".join(pair.notes),
        "links": _links((mine, other), machines),
    }


def _costs(mine: Machine, other: Machine, found: Compared) -> Table | None:
    """Return what work costs on each machine, where a price is known; None where there is none."""
    prices = [machine.price for machine in (mine, other)]
    paid = [pair for pair in found.pairs if pair.mine.metric.paid]
    known = [price for price in prices if price is not None]
    if not known or not paid:
        return None
    if len({price.currency for price in known}) > 1:
        words = listing([f"{price.per_device_hour:g} {price.currency}" for price in known])
        empty = f"What work costs cannot be compared, because the prices are in different currencies: {words}."
        return Table("costs", "By price", "", frame([]), empty=empty)
    currency = known[0].currency
    rows = [_cost_row(pair, prices) for pair in paid]
    columns = [
        value("metric", text=markup.escape, numeric=False),
        value("cell", text=markup.escape, numeric=False),
        Column(f"{markup.escape(mine.name)}, per {markup.escape(currency)}", lambda row: _amount(row, "mine")),
        Column(f"{markup.escape(other.name)}, per {markup.escape(currency)}", lambda row: _amount(row, "other")),
        Column("ratio", lambda row: units.ratio(row["per_money_ratio"])),
        Column("an epoch costs", lambda row: _epoch_costs(row, currency), droppable=True),
        Column("breaks even at", lambda row: _break_even(row, currency)),
    ]
    told = [f"{machine.name}: {_priced(machine.price)}" for machine in (mine, other) if machine.price is not None]
    caption = (
        f"{'; '.join(told)}. Devices that idle cost as much. It breaks even at the price of a device-hour of "
        f"{other.name} at which its work costs what it costs on {mine.name}."
    )
    return Table("costs", "By price", caption, frame(rows), columns)


def _cost_row(pair: Pair, prices: Sequence[Price | None]) -> dict[str, Any]:
    metric = pair.mine.metric
    row: dict[str, Any] = {"metric": metric.name, "cell": _cell_words(pair.mine), "unit": metric.paid}
    for side, headline, price in zip(("mine", "other"), (pair.mine, pair.other), prices, strict=True):
        per_hour = None if price is None else price.per_device_hour * headline.devices
        row[f"{side}_per_money"] = headline.rate * 3600 / per_hour if per_hour else None
        epoch_s = headline.work / headline.rate if metric.experiment == "encoder_decoder" else None
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


def _epoch_costs(row: Row, currency: str) -> str:
    costs = [row[f"{side}_epoch_cost"] for side in ("mine", "other")]
    if all(cost is None for cost in costs):
        return ""
    return " / ".join(units.NOTHING if cost is None else f"{cost:.3g} {markup.escape(currency)}" for cost in costs)


def _break_even(row: Row, currency: str) -> str:
    price = row["break_even_per_device_hour"]
    return units.NOTHING if price is None else f"{price:.3g} {markup.escape(currency)}"


def _priced(price: Price | None) -> str:
    if price is None:
        return "no price"
    about = ", ".join(each for each in (price.date, price.source) if each)
    return f"{price.per_device_hour:g} {price.currency} a device-hour" + (f" ({about})" if about else "")


def _unlike(mine: Headline, other: Headline) -> list[str]:
    """Return in what definition or protocol of any record differ from the first one's, as far as both state them."""
    first = mine.records[0]
    for record in (*mine.records, *other.records):
        if reasons := _differences(first, record):
            return reasons
    return []


def _differences(first: Record, record: Record) -> list[str]:
    definitions = [_definition(each) for each in (first, record)]
    if all(definitions):
        found = fingerprint.difference({"definition": definitions[0]}, {"definition": definitions[1]})
        return [f"{each.key} {each.before!r} here, {each.after!r} there" for each in found]
    stated = [{key: each.protocol[key] for key in STATED if key in each.protocol} for each in (first, record)]
    return [
        f"{key} {stated[0][key]} here, {stated[1][key]} there"
        for key in STATED
        if key in stated[0] and key in stated[1] and stated[0][key] != stated[1][key]
    ]


def _definition(record: Record) -> dict[str, Any]:
    """Return what a record was asked, without what belongs to its machine; nothing where it does not say."""
    found = record.fingerprint.get("definition")
    return {key: value for key, value in found.items() if key not in OF_THE_MACHINE} if isinstance(found, dict) else {}


def _notes(mine: Headline, other: Headline) -> tuple[str, ...]:
    notes = []
    records = (*mine.records, *other.records)
    sources = [record.fingerprint["source"] for record in records if record.fingerprint.get("source")]
    if any(source != sources[0] for source in sources):
        notes.append("measured by different versions of the code")
    for whose, each in (("first", mine), ("second", other)):
        notes += [f"{whose} {mark}" for mark in conditions.find(list(each.records))]
    if not all(record.samples for record in records):
        notes.append("published means")
    if not all(record.protocol for record in records):
        notes.append("a protocol is not stated")
    return tuple(notes)


def _named(headline: Headline) -> str:
    return f"{headline.metric.name} ({_cell_words(headline)})"


def _cell_words(headline: Headline) -> str:
    """Return a cell's axes in words, without those that are at their defaults."""
    fields = {each.name: each.default for each in dataclasses.fields(experiments.load(headline.metric.experiment).cell)}
    words = (
        f"{axis.replace('_', ' ')} {str(found).replace('_', ' ')}"
        for axis, found in headline.cell.items()
        if found != fields[axis]
    )
    return ", ".join(words)


def _links(sides: tuple[Headline, Headline], machines: tuple[Machine, Machine]) -> str:
    """Return links to the records of each side; published numbers have none of stepbench's own."""
    found = []
    for headline, machine in zip(sides, machines, strict=True):
        if machine.published is None:
            paths = [f"results/{machine.name}/{record.experiment}/{_stem(record)}.json" for record in headline.records]
            found.append(markup.records({machine.name: paths}, beside=f"{RESULTS}/{machine.name}"))
    return markup.BREAK.join(found) or units.NOTHING


def _stem(record: Record) -> str:
    return experiments.load(record.experiment).cell(**record.cell).name
