"""Hold each number and each name of a sentence against the rows of the tables that it speaks of.

A number holds if a row has it, or if it follows from rows in one of a few ways: a ratio of two rows or of two times of
one row, a share of the parts of a row, a difference from 1, a count of rows. The rows are those that share a record
with the finding; they come from the tables' JSON, not from what the sentences were made of.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stepbench.reporting import tables
from stepbench.reporting.columns import axis_words
from stepbench.reporting.findings import Finding
from stepbench.reporting.frames import Results
from stepbench.reporting.tables import ShownRow, Table

SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}
BYTES = {"TiB": 2.0**40, "GiB": 2.0**30, "MiB": 2.0**20, "KiB": 2.0**10, "B": 1.0}
RATES = {f"{prefix}{unit}/s": size for prefix, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)) for unit in ("B", "FLOP")}
RATES |= {"kB/s": 1e3, "samples/s": 1.0, "tokens/s": 1.0}
UNITS = {**SECONDS, **BYTES, **RATES, "%": 0.01, "×": 1.0, "": 1.0}
_UNIT = "|".join(sorted((re.escape(unit) for unit in UNITS if unit and unit != "×"), key=len, reverse=True))
NUMBER = re.compile(
    r"(?<![\w.~])(?P<digits>[−-]?\d[\d\u202f]*(?:\.\d+)?)(?P<power>×10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?"
    rf"(?:(?P<times>×)|\s(?P<unit>{_UNIT}))?(?![\w]|\.\d|/s)"
)
SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹−", "-0123456789-")
NAMING_AXES = (
    "size",
    "preset",
    "implementation",
    "attention",
    "strategy",
    "variant",
    "precision",
    "dtype",
    "operation",
)
NAMING_AXES_OF_OTHERS = ("variant", "operation")
TOO_ORDINARY = {"none", "copy", "matmul"}
QUOTED = re.compile(r"“[^”]*”|Quality C: .*$|One process each: no verdict\.|no verdict, which needs \d+ a side\.")
# What two rows are compared by.
COMPARED = ("step_median_s", "sum_mean_s", "sum_std_s", "forward_median_s", "backward_median_s", "_bytes", "per_s")
COMPARED += ("context", "columns")
PARTS = (
    (("forward", "backward", "optimizer"), "_median_s"),
    (("parameters", "gradients", "optimizer_state", "activations", "temporary"), "_bytes"),
    (("scores", "softmax", "values"), "_s"),
)


@dataclass(frozen=True)
class Number:
    """A number as it stands in a sentence: its value in SI units, how far it may be rounded, and its unit."""

    text: str
    value: float
    half: float
    unit: str

    def is_near(self, other: float) -> bool:
        """Return whether a value rounds to it."""
        return abs(other - self.value) <= self.half * (1 + 1e-6) + 1e-12 * abs(self.value)


def numbers(sentence: str) -> list[Number]:
    """Return the numbers of a sentence; those of an interval have the unit of the number before it."""
    text = QUOTED.sub("", sentence)
    found, last = [], ""
    for match in NUMBER.finditer(text):
        digits = match["digits"].replace("\u202f", "").translate(SUPERSCRIPTS)
        unit = "×" if match["times"] else match["unit"] or ""
        inside = text.rfind("[", 0, match.start()) > text.rfind("]", 0, match.start())
        if inside:
            unit = last
        elif not unit and (behind := re.match(rf"\s\[[^\]]*\]\s(?P<unit>{_UNIT})(?![\w/])", text[match.end() :])):
            unit = behind["unit"]
        last = unit
        power = 10.0 ** int(match["power"][3:].translate(SUPERSCRIPTS)) if match["power"] else 1.0
        scale = UNITS[unit] * power
        decimals = len(digits.partition(".")[2])
        found.append(Number(match[0], float(digits) * scale, 0.5 * 10.0**-decimals * scale, unit))
    return found


@dataclass(frozen=True)
class Rows:
    """All rows of an experiment's tables and of those that it reads, and all points."""

    rows: tuple[ShownRow, ...]
    results: tuple[Results, ...]

    @classmethod
    def of(cls, results: Results, shown: Iterable[Table]) -> Rows:
        """Return the rows as the JSON beside the tables holds them."""
        content = (json.loads(json.dumps(dataclasses.asdict(tables.show(table)))) for table in shown)
        rows = tuple(row for each in content for row in tables.load(each).rows)
        return cls(rows, (results, *results.others.values()))

    def about(self, finding: Finding) -> list[Mapping[str, Any]]:
        """Return the values of the rows that share a record with a finding."""
        wanted = set(finding.evidence.records)
        return [row.values for row in self.rows if wanted & {path for paths in row.records.values() for path in paths}]

    def names(self) -> dict[str, set[str]]:
        """Return every value of the axes that sentences name, in words -> the records of the points that have it."""
        found: dict[str, set[str]] = {}
        for results in self.results:
            for group in results.groups():
                for axis in NAMING_AXES if results is self.results[0] else NAMING_AXES_OF_OTHERS:
                    value = group.point.get(axis)
                    if isinstance(value, str) and value not in TOO_ORDINARY:
                        found.setdefault(axis_words(value), set()).update(row["path"] for row in group.rows)
        return found


def wrong_names(finding: Finding, rows: Rows) -> list[str]:
    """Return the names in a sentence of points that it does not rest on."""
    text, wrong = QUOTED.sub("", finding.sentence), []
    held = {axis_words(value) for row in rows.about(finding) for value in row.values() if isinstance(value, str)}
    for name, records in sorted(rows.names().items(), key=lambda each: -len(each[0])):
        pattern = rf"(?<![\w-]){re.escape(name)}(?![\w-])"
        if re.search(pattern, text):
            text = re.sub(pattern, "", text)  # `bf16` within `torch bf16` is no name of its own
            if not records & set(finding.evidence.records) and name not in held:
                wrong.append(name)
    return wrong


def wrong_numbers(finding: Finding, rows: Rows, constants: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the numbers in a sentence that do not follow from its rows.

    Args:
        finding: the finding.
        rows: of the experiment's tables.
        constants: unit -> limits that sentences state.
    """
    about = rows.about(finding)
    known = {unit: [*constants.get(unit, ())] for unit in ("×", "%", "")}
    known["×"] += _ratios(about)
    known["%"] += [*_shares(about), *_of_sums(about), *(abs(ratio - 1) for ratio in _suffixed(about, "_ratio"))]
    known[""] += [*_counts(finding, about, rows), *_plain(about), *_suffixed(about, "_ratio")]
    times = [*_suffixed(about, "_s"), *_gaps(about)]
    sizes = [
        *_products(about),
        *_suffixed(about, "_bytes"),
        *_memory(finding, rows),
        *(2**20 * value for value in _plain(about)),
    ]
    rates = [*_suffixed(about, "_per_s")]
    known |= dict.fromkeys(SECONDS, times) | dict.fromkeys(BYTES, sizes) | dict.fromkeys(RATES, rates)
    return [
        number.text
        for number in numbers(finding.sentence)
        if not any(number.is_near(value) or number.is_near(-value) for value in known[number.unit])
    ]


def _suffixed(about: Iterable[Mapping[str, Any]], suffix: str) -> Iterator[float]:
    """Yield the values whose key ends with a unit; `_per_s` is no time."""
    for row in about:
        for key, value in row.items():
            if f"_{key}".endswith(suffix) and _is_number(value) and (suffix != "_s" or not key.endswith("per_s")):
                yield float(value)


def _plain(about: Iterable[Mapping[str, Any]]) -> Iterator[float]:
    """Yield numbers without a unit: axes, counts, sums; numbers in axes that are words, such as groups."""
    for row in about:
        for key, value in row.items():
            if _is_number(value) and not key.endswith(("_s", "_bytes", "_ratio")):
                yield float(value)
            if key.startswith("on "):  # a column for each card, such as `on RTX 5090 (32 GB)`
                yield from map(float, re.findall(r"(?<![\w.])\d+(?![\w.])", key))
            elif isinstance(value, str):
                yield from map(float, re.findall(r"(?<![\w.])\d+(?![\w.])", value))


def _ratios(about: Sequence[Mapping[str, Any]]) -> Iterator[float]:
    """Yield ratios: those of rows, of two times of one row, and of the same value in two rows."""
    for value in _suffixed(about, "_ratio"):
        yield value
        if value:
            yield 1 / value
    for row in about:
        if row.get("forward_median_s") and row.get("backward_median_s"):
            yield row["backward_median_s"] / row["forward_median_s"]
    for first, second in itertools.permutations(about, 2):
        for key, value in first.items():
            other = second.get(key)
            if key.endswith(COMPARED) and _is_number(value) and _is_number(other) and other:
                yield value / other
        # A moment's bytes relative to those of another variant, and a step's first time over a settled one.
        if _is_number(first.get("first_s")) and second.get("sum_median_s"):
            yield first["first_s"] / second["sum_median_s"]


def _shares(about: Iterable[Mapping[str, Any]]) -> Iterator[float]:
    """Yield shares: ratios of rows, and parts of the sums of phases, of categories, of operations."""
    for row in about:
        yield from (value for key, value in row.items() if key.endswith("_ratio") and _is_number(value))
        for names, suffix in PARTS:
            parts = [row.get(f"{name}{suffix}") for name in names]
            known = [part for part in parts if _is_number(part)]
            if known and sum(known):
                yield from (part / sum(known) for part in known)


def _sum(about: Iterable[Mapping[str, Any]], key: str) -> float:
    return float(sum(row[key] for row in about if _is_number(row.get(key)) and row.get("phase") != "whole step"))


def _of_sums(about: Sequence[Mapping[str, Any]]) -> Iterator[float]:
    """Yield shares of sums over phases: the parts of attention in each other, and all of them in the step."""
    parts = [_sum(about, f"{name}_s") for name in ("scores", "softmax", "values")]
    if step := _sum(about, "profiled_s"):
        yield sum(parts) / step
    yield from (part / sum(parts) for part in parts if sum(parts))


def _products(about: Sequence[Mapping[str, Any]]) -> Iterator[float]:
    """Yield the message that takes twice the latency, and what one block saves."""
    for row in about:
        if _is_number(row.get("latency_s")) and _is_number(row.get("bytes_per_s")):
            yield float(row["latency_s"] * row["bytes_per_s"])
    yield _sum(about, "saved_bytes")


def _gaps(about: Iterable[Mapping[str, Any]]) -> Iterator[float]:
    """Yield the difference between two ways to measure one time."""
    for row in about:
        sides = [row.get(key) for key in ("exposed_median_s", "comm_wait_median_s")]
        if all(map(_is_number, sides)):
            yield float(sides[0]) - float(sides[1])  # type: ignore[arg-type]


def _counts(finding: Finding, about: Sequence[Mapping[str, Any]], rows: Rows) -> Iterator[float]:
    """Yield how many rows, points, cells and processes there are, and how many there are of each kind."""
    own = rows.results[0]
    points = [group for group in own.groups() if set(group.paths) & set(finding.evidence.records)]
    yield from range(len(own.rows) + 1) if finding.kind in ("warnings", "cells without numbers") else ()
    yield from (float(count) for count in (len(about), len(points), len(own.groups()), len(own.rows)))
    yield float(sum("agree" in str(row.get("verdict")) for row in about))
    yield from (float(value) for group in points for value in group.point.values() if _is_number(value))
    if points:
        yield float(max(len(group.records) for group in points))
        yield float(len({group.point.get("groups") for group in points}) - 1)
        yield float(len({group.point.get("size") for group in points}))
    yield from (float(sum(map(bool, column))) for column in _columns(about, "over_limit"))


def _columns(about: Sequence[Mapping[str, Any]], key: str) -> Iterator[list[Any]]:
    if any(key in row for row in about):
        yield [row.get(key) for row in about]


def _memory(finding: Finding, rows: Rows) -> Iterator[float]:
    """Yield the memory of the machine, which stands in no table."""
    for results in rows.results:
        for row in results.rows:
            if row["path"] in finding.evidence.records and row["record"] is not None:
                for key in ("host_memory_bytes", "device_memory_bytes"):
                    if _is_number(value := row["record"].environment.get(key)):
                        yield float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
