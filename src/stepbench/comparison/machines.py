"""The records of each known machine: this one, those whose bundles were merged, and those that others published."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells, planning, records
from stepbench.pipeline.records import Record
from stepbench.pipeline.state import States
from stepbench.reporting.findings import listing, plural
from stepbench.reporting.prices import Price

PUBLISHED = Path(__file__).parent / "published"
NO_CURRENCY = ""  # of a price from the command line, where config.yaml has none
NOT_MACHINES = ("data",)  # results/data holds tokens and shards


@dataclass(frozen=True)
class Machine:
    """One machine and its records.

    Attributes:
        name: the folder under results/, or the name of a published file, which ends in `-published`.
        records: those that hold numbers, in the order of their cells' names.
        published: the document with its numbers, if stepbench has not measured them.
        note: what that document leaves open.
        price: of one of its devices.
        refused: why records are unreadable.
    """

    name: str
    records: tuple[Record, ...]
    published: str | None = None
    note: str | None = None
    price: Price | None = None
    refused: tuple[str, ...] = field(default=())


def load(states: States) -> list[Machine]:
    """Return all known machines: this one first, then merged ones, then published ones.

    Of this machine all fresh records count, in the grid or not; of merged ones all that are readable.
    """
    bench = states.bench
    prices = {name: Price.of(each) for name, each in bench.settings.get("prices", {}).items()}
    found = [Machine(bench.machine, tuple(_fresh(states)), price=prices.get(bench.machine))]
    folders = sorted(path for path in (bench.root / "results").glob("*") if path.is_dir())
    others = [path for path in folders if path.name not in (bench.machine, *NOT_MACHINES)]
    found += [_merged(folder, prices.get(folder.name)) for folder in others]
    found += [_published(file, prices.get(name_of(file))) for file in sorted(PUBLISHED.glob("*.json"))]
    return [machine for machine in found if machine.records or machine.refused or machine.name == bench.machine]


def priced(found: Sequence[Machine], texts: Sequence[str]) -> list[Machine]:
    """Return the machines with prices in place of their own: `<machine>=<amount>`, in the currency of config.yaml.

    Raises:
        ValueError: a text is no price of one of these machines.
    """
    currencies = [machine.price.currency for machine in found if machine.price is not None]
    prices = {}
    for text in texts:
        name, _, amount = text.partition("=")
        try:
            price = float(amount)
        except ValueError:
            price = 0.0
        if not 0 < price < float("inf") or name not in {machine.name for machine in found}:
            raise ValueError(f"`--price` must be <machine>=<amount above 0> of a known machine, got {text!r}")
        prices[name] = Price(price, currencies[0] if currencies else NO_CURRENCY)
    return [replace(machine, price=prices.get(machine.name, machine.price)) for machine in found]


def provenance(machine: Machine) -> str:
    """Return who measured a machine and when, in a sentence or two."""
    if machine.published is not None:
        return f"Published, not measured by stepbench: {machine.published}." + (
            f" {machine.note}" if machine.note else ""
        )
    commits = sorted({str(record.environment.get("git_commit"))[:10] for record in machine.records})
    days = sorted({record.started[:10] for record in machine.records})
    refused = f" {plural(len(machine.refused), 'record')} unreadable." if machine.refused else ""
    if not days:
        return f"No readable record.{refused}"
    last = f" to {days[-1]}" if len(days) > 1 else ""
    return f"Measured by stepbench from {days[0]}{last}, at commit {listing(commits)}.{refused}"


def _fresh(states: States) -> Iterable[Record]:
    for path in planning.recorded(states.bench):
        try:
            cell = states.bench.locate(path)
        except ValueError:
            continue
        state = states.of(cell)
        if state.kind == "fresh" and state.record is not None and state.record.ok:
            yield state.record


def _merged(folder: Path, price: Price | None) -> Machine:
    good, refused = [], []
    for path in sorted(folder.glob("*/*~*.json")):
        try:
            record = records.read(path)
            if _is_its_own(record, path):
                good.append(record)
            else:
                refused.append(f"{path}: `cell` must be the one that the path names")
        except records.RecordError as error:
            refused.append(str(error))
    return Machine(folder.name, tuple(each for each in good if each.ok), price=price, refused=tuple(refused))


def _is_its_own(record: Record, path: Path) -> bool:
    """Return whether a record has the cell that its path names."""
    try:
        cell = cells.parse(experiments.load(path.parent.name).cell, path.stem)
    except ValueError:
        return False
    return record.experiment == path.parent.name and record.cell == cell.values


def name_of(file: Path) -> str:
    """Return the name of a published machine, which is never that of one whose records are here."""
    return f"{file.stem}-published"


def _published(file: Path, price: Price | None) -> Machine:
    content: Mapping[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    found = [records.believe(each, Path(file.name, name)) for name, each in content["records"].items()]
    told = content["published"]
    return Machine(
        name_of(file),
        tuple(record for record in found if record.ok),
        published=told["source"],
        note=told["note"],
        price=price,
    )
