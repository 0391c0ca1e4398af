"""Every finding of synthetic and of real results: its numbers, its names and its order against the tables' rows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.reporting import held_sentences
from tests.reporting.conftest import results
from tests.reporting.held_sentences import Rows

from stepbench.experiments import experiment as experiments
from stepbench.experiments.fits.ways import CONTEXT
from stepbench.experiments.numerics.cell import TERMS
from stepbench.pipeline.bench import Bench
from stepbench.reporting import rendering, units
from stepbench.reporting.columns import axis_words
from stepbench.reporting.evidence import SCOPE
from stepbench.reporting.findings import Finding
from stepbench.reporting.statistics import MIN_PROCESSES, Verdict

# Limits that sentences state: 1 %, 5 %, 10 %, and the least share that is shown.
CONSTANTS = {"%": (0.01, 0.05, 0.1, units.LEAST_SHARE), "": (TERMS, CONTEXT)}
COUNTING = ("warnings", "cells without numbers")
Values = list[Mapping[str, Any]]


@pytest.fixture(params=["synthetic", "real"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """A bench with records of every experiment: of nobody's, and of a machine."""
    found: Bench = request.getfixturevalue({"synthetic": "everything", "real": "measured"}[request.param])
    return found


_TOLD: dict[Path, list[tuple[str, Finding, Rows]]] = {}


def told(bench: Bench) -> list[tuple[str, Finding, Rows]]:
    """Return every finding with the name of its experiment and the rows of the tables it may speak of."""
    if bench.root not in _TOLD:
        _TOLD[bench.root] = [*_told(bench)]
    return _TOLD[bench.root]


def _told(bench: Bench) -> Iterator[tuple[str, Finding, Rows]]:
    tables = {
        name: list(experiments.load(name).tabulate(results(bench, name)).values())
        for name in bench.names
        if name in experiments.names()
    }
    for name in bench.names:
        experiment = experiments.load(name)
        read = [each for each in (name, *experiment.reads) if each in tables and each != "ceilings"]
        shown = [table for each in read for table in tables[each]]
        shown += tables["ceilings"] if name == "ceilings" else []
        rows = Rows.of(results(bench, name), shown)
        for finding in rendering.find(experiment, results(bench, name)):
            yield name, finding, rows


def test_every_number_and_every_name_stands_in_the_rows(bench: Bench) -> None:
    wrong = []
    for name, finding, rows in told(bench):
        numbers = held_sentences.wrong_numbers(finding, rows, CONSTANTS)
        names = held_sentences.wrong_names(finding, rows)
        wrong += [(name, finding.kind, numbers, names, finding.sentence)] if numbers or names else []
    assert wrong == []


def test_a_changed_number_is_found(everything: Bench) -> None:
    """The check above would be worth nothing if any number followed from some rows."""
    found, missed = 0, []
    for name, finding, rows in told(everything):
        if finding.kind in COUNTING:
            continue
        for number in held_sentences.numbers(finding.sentence):
            digits = re.search(r"\d+(\.\d+)?", number.text)
            if digits is None or float(digits[0]) < 5:  # a small count may well be another one
                continue
            changed = f"{float(digits[0]) * 1.13:.{len(digits[0].partition('.')[2])}f}"
            text = finding.sentence.replace(number.text, number.text.replace(digits[0], changed), 1)
            mutant = dataclasses.replace(finding, sentence=text)
            if held_sentences.wrong_numbers(mutant, rows, CONSTANTS):
                found += 1
            else:
                missed.append((name, number.text, changed, finding.sentence))
    assert found > 80
    assert len(missed) < 0.05 * found, missed


def test_a_sentence_is_as_certain_as_its_rows(bench: Bench) -> None:
    for name, finding, _ in told(bench):
        evidence = finding.evidence
        if evidence.comparison is not None and min(evidence.comparison.processes) < MIN_PROCESSES:
            assert "no verdict" in finding.text, (name, finding.text)
            assert "than linear" not in finding.text
        if evidence.comparison is not None and evidence.comparison.verdict is Verdict.UNCLEAR:
            assert "verdict" in finding.text, (name, finding.text)
        doubtful = any(mark.kind in ("disturbed", "throttled", "parts and whole differ") for mark in evidence.warnings)
        assert doubtful == ("Quality C: " in finding.text), (name, finding.text)
        assert evidence.quality != "D"


def test_every_experiment_is_told_of(everything: Bench) -> None:
    assert {name for name, *_ in told(everything)} == set(experiments.names())


def test_a_sentence_names_what_the_grid_has_several_of(bench: Bench) -> None:
    """“MFU is 24 %” says nothing if the rows beneath it have three contexts and the sentence is about one."""
    held = set()
    for name, finding, rows in told(bench):
        points = [group.point for group in rows.results[0].groups()]
        for axis, value in finding.evidence.shared:
            if axis in SCOPE and len({point.get(axis) for point in points}) > 1:
                held.add(name)
                said = finding.sentence.replace("training step", "train step")
                assert axis_words(value) in said, (name, axis, finding.text)
    assert len(held) >= 4


# -- order -------------------------------------------------------------------------------------------------------------


def fastest(finding: Finding, rows: Values) -> bool:
    found = re.search(r"tokens (.+) has the fastest (\w+) pass .*; (.+) takes", finding.sentence)
    assert found
    return first_and_last(rows, "implementation", f"{found[2]}_median_s") == (found[1], found[3])


def first_and_last(rows: Values, axis: str, key: str) -> tuple[str, str]:
    """Return the values of an axis in the rows with the least and the most of a key."""
    known = sorted((row for row in rows if row.get(key) is not None), key=lambda row: float(row[key]))
    return axis_words(known[0][axis]), axis_words(known[-1][axis])


def saves_most(finding: Finding, rows: Values) -> bool:
    found = re.search(r"pass (.+) saves .* as much as (.+) \(", finding.sentence)
    return found is None or first_and_last(rows, "implementation", "saved_bytes") == (found[2], found[1])


def highest_bandwidth(finding: Finding, rows: Values) -> bool:
    known = [row for row in rows if row.get("bus_bytes_per_s") and "payload_bytes" in row]
    best = max(known, key=lambda row: float(row["bus_bytes_per_s"]))
    return f"by {axis_words(best['operation'])} of {units.byte_count(best['payload_bytes'])}" in finding.sentence


def by_share(finding: Finding, rows: Values) -> bool:
    shares = [float(each.replace("−", "-")) for each in re.findall(r"([\d.]+) %", finding.sentence)]
    return shares == sorted(shares, reverse=True)


def shortest(finding: Finding, rows: Values) -> bool:
    best = min((row for row in rows if row.get("step_median_s")), key=lambda row: float(row["step_median_s"]))
    return units.seconds(best["step_median_s"]) in finding.sentence and axis_words(best["strategy"]) in finding.sentence


def best_bucket(finding: Finding, rows: Values) -> bool:
    known = [row for row in rows if row.get("step_median_s") and row["strategy"] == "bucketed"]
    best = min(known, key=lambda row: float(row["step_median_s"]))
    return len(known) < 2 or f"{best['bucket_mib'] or 25} MiB has the shortest step" in finding.sentence


def dominant(finding: Finding, rows: Values) -> bool:
    phase = finding.sentence.split()[1]
    return all(
        row[f"{phase}_median_s"] == max(row[f"{each}_median_s"] or 0 for each in ("forward", "backward", "optimizer"))
        for row in rows
        if row.get("passes") == "train_step" and row.get("optimizer_median_s") is not None
    )


def least_and_most_used(finding: Finding, rows: Values) -> bool:
    shares = [float(row["mfu_measured_ratio"]) for row in rows if row.get("mfu_measured_ratio") is not None]
    told = [number.text for number in held_sentences.numbers(finding.sentence) if number.unit == "%"]
    return not shares or (told[0] == units.percent(min(shares)) and units.percent(max(shares)) in told)


def top_operator(finding: Finding, rows: Values) -> bool:
    found = re.search(r"In the (\w+)(?: pass)? the operator (\S+) takes", finding.sentence)
    assert found
    of_phase = [row for row in rows if row.get("operator") and row["phase"] == found[1] and "kernel" not in row]
    passes = {row["passes"] for row in of_phase}
    best = [
        max((row for row in of_phase if row["passes"] == each), key=lambda row: float(row["time_s"])) for each in passes
    ]
    return {row["operator"] for row in best} == {found[2]}


def largest_category(finding: Finding, rows: Values) -> bool:
    words = finding.sentence.partition("largest category is ")[2].partition(":")[0].replace(" ", "_")
    categories = ("parameters", "gradients", "optimizer_state", "activations", "temporary")
    peaks = [row for row in rows if "peak_in" in row and all(row[f"{each}_bytes"] is not None for each in categories)]
    return bool(peaks) and all(
        row[f"{words}_bytes"] == max(row[f"{each}_bytes"] for each in categories) for row in peaks
    )


def smallest_peak(finding: Finding, rows: Values) -> bool:
    if not finding.sentence.startswith("Of "):
        return True
    known = [row for row in rows if row.get("peak_activation_bytes") and str(row.get("groups", "")).isdecimal()]
    best = min(known, key=lambda row: float(row["peak_activation_bytes"]))
    return units.byte_count(best["peak_activation_bytes"]) in finding.sentence


def highest_throughput(finding: Finding, rows: Values) -> bool:
    rates = [float(row["samples_per_s"]) for row in rows if row.get("samples_per_s") and "epoch" not in row]
    return f"{units.number(max(rates))} samples/s" in finding.sentence


def worst_and_best_sum(finding: Finding, rows: Values) -> bool:
    found = re.search(r"“(.+)” has the largest error .* “(.+)” the smallest", finding.sentence)
    if found is None:
        return True
    known = sorted((row for row in rows if row.get("error") is not None), key=lambda row: abs(float(row["error"])))
    return (known[-1]["way"], known[0]["way"]) == found.groups()


def as_judged(finding: Finding, rows: Values) -> bool:
    verdicts = {row["verdict"] for row in rows if "speedup_ratio" in row}
    return finding.verdict is None or finding.verdict in verdicts


ORDERS: dict[tuple[str, str], Callable[[Finding, Values], bool]] = {
    ("attention", "fastest"): fastest,
    ("attention", "saved activations"): saves_most,
    ("collectives", "bandwidth"): highest_bandwidth,
    ("data_parallel", "exposed communication"): by_share,
    ("data_parallel", "shortest step"): shortest,
    ("data_parallel", "bucket size"): best_bucket,
    ("end_to_end", "dominant phase"): dominant,
    ("end_to_end", "utilisation"): least_and_most_used,
    ("end_to_end", "comparison"): as_judged,
    ("profile", "top operator"): top_operator,
    ("memory", "largest category"): largest_category,
    ("checkpointing", "one level"): smallest_peak,
    ("encoder_decoder", "throughput"): highest_throughput,
    ("numerics", "accumulation"): worst_and_best_sum,
}


def test_what_is_called_first_or_last_is_so_in_the_rows(bench: Bench) -> None:
    held = set()
    for name, finding, rows in told(bench):
        check = ORDERS.get((name, finding.kind))
        if check is not None:
            held.add((name, finding.kind))
            assert check(finding, rows.about(finding)), (name, finding.text)
    assert held == set(ORDERS)
