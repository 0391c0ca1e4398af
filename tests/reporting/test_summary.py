"""What stands on the first screen, made from records that nobody measured."""

from pathlib import Path

import pytest
from tests.reporting import synthetic
from tests.reporting.conftest import SMALL_GRIDS, results

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import records
from stepbench.pipeline.bench import Bench
from stepbench.reporting import costs, summary, summary_text, tables
from stepbench.reporting.findings import CONTRADICTION, Told
from stepbench.reporting.prices import Price
from stepbench.reporting.summary import Contribution, Speed
from stepbench.reporting.tables import Table

END_TO_END = experiments.load("end_to_end")


def contributed(bench: Bench) -> Contribution:
    assert END_TO_END.summarize is not None
    found: Contribution = END_TO_END.summarize(results(bench, "end_to_end"))
    return found


@pytest.fixture(scope="module")
def speeds(full: Bench) -> list[Speed]:
    return summary.fastest(contributed(full).speeds)


def test_each_size_and_context_has_its_fastest_way(speeds: list[Speed]) -> None:
    rows = {(row["size"], row["context"]): row for row in summary_text.speeds(speeds).rows}
    assert set(rows) == {("nano", 64), ("nano", 128), ("micro", 64), ("micro", 128)}
    best = rows["nano", 64]  # bf16 has the highest peak in these records
    assert best["way"] == "bf16, eager, naive attention"
    assert best["verdict"] == "FASTER"
    assert best["over_plain_ratio"] > 1.5
    assert best["tokens_low_per_s"] < best["tokens_per_s"] < best["tokens_high_per_s"]
    assert rows["micro", 128]["verdict"] == "the plain step"
    assert 0 < rows["micro", 128]["mfu_ratio"] < 1


def test_the_energy_of_a_token_is_told_where_a_record_has_it(tmp_path: Path, speeds: list[Speed]) -> None:
    assert "energy" not in tables.markdown(summary_text.speeds(speeds), "report")
    bench = synthetic.bench(tmp_path, end_to_end=[{"size": ["nano"], "context": [64], "replicate": [0, 1, 2]}])
    synthetic.fill(bench)
    for cell, joules in zip(bench.grid("end_to_end"), (2.56, 5.12, 99.0), strict=True):
        record = records.read(bench.root / bench.path(cell))
        scalars = {**record.scalars, "step_energy_joules": joules}
        synthetic.write(bench, "end_to_end", cell, samples=record.samples, scalars=scalars)
    found = summary.fastest(contributed(bench).speeds)
    (row,) = summary_text.speeds(found).rows
    assert row["token_energy_joules"] == pytest.approx(0.02)
    assert "20.0 mJ" in tables.markdown(summary_text.speeds(found), "report")
    assert "5.56 kWh" in tables.markdown(costs.table(found, None, "imaginary-2c", {}), "report")


def test_without_a_step_the_table_says_so(tmp_path: Path) -> None:
    bench = synthetic.bench(tmp_path, end_to_end=SMALL_GRIDS["end_to_end"])
    text = tables.markdown(summary_text.speeds(summary.fastest(contributed(bench).speeds)), "report")
    assert summary_text.NO_SPEED in text


def test_how_sure_counts_records_and_warnings(tmp_path: Path) -> None:
    bench = synthetic.bench(tmp_path, end_to_end=[{"size": ["nano"], "context": [64, 128, 256]}])
    first, second, _ = bench.grid("end_to_end")
    synthetic.fill(bench)
    synthetic.write(bench, "end_to_end", second, status="error", kind="exception", reason="ValueError: no")
    mark = {"records": {"": [str(bench.path(first))]}, "warnings": (tables.Mark("noisy"),), "quality": "B"}
    shown = [tables.show(Table("one", "", [{"size": "nano", **mark}]))]
    found = summary.sureness([results(bench, "end_to_end")], shown)
    assert (found.processes, found.failed, found.warned) == (2, 1, 1)
    text = summary_text.sure(found)
    assert text.startswith("2 cells, each in a process of its own, on 2026-01-01; torch 2.13.0+cpu; 1 of them carry")
    assert text.endswith("1 cell failed.")


def told(kind: str, text: str, ratio: float | None = None, verdict: str | None = None) -> Told:
    return Told(kind, text, ("a",), "", (), "A", "stated", verdict, ratio)


def test_what_matters_most_comes_first() -> None:
    found = {
        "One": [told("comparison", "small", 1.1, "FASTER"), told("comparison", "no", 9.0, "UNCLEAR")],
        "Two": [told("comparison", "large", 0.2, "SLOWER"), told(CONTRADICTION, "they disagree")],
        "Three": [told("comparison", f"middle {number}", 2.0, "FASTER") for number in range(2)],
        "Four": [told(CONTRADICTION, "a little", 1.06, "UNCLEAR")],
    }
    chosen = summary.highlights(found, {})
    assert [each.text for each in chosen] == ["they disagree", "large", "middle 0", "middle 1", "small"]
    del found["One"]
    assert summary.highlights(found, {})[-1].text == "a little"
    assert summary_text.link(summary.Highlight("x", "What fits?")) == ("What fits?", "what-fits")


def test_costs_are_of_a_billion_tokens_and_of_the_budget(speeds: list[Speed]) -> None:
    price = Price(3.6, "EUR", "2026-11-21", "a list")
    settings = {"budget": {"tokens_per_parameter": 10}}
    table = costs.table(speeds, price, "imaginary-2c", settings)
    for row, speed in zip(table.rows, speeds, strict=True):
        assert row["billion_cost"] == pytest.approx(1e9 / speed.tokens_per_s / 3600 * 3.6)
        assert row["budget_tokens"] == 10 * row["parameters"]
        assert row["budget_cost"] == pytest.approx(row["budget_tokens"] / 1e9 * row["billion_cost"])
    text = tables.markdown(table, "report")
    assert "A device-hour costs 3.6 EUR (rented; 2026-11-21, a list)." in text
    assert "and cost (EUR)" in text
    assert "costs 3.6 EUR (rented)." in tables.markdown(costs.table(speeds, Price(3.6, "EUR"), "x", settings), "report")
    assert "no price of imaginary-2c" in tables.markdown(costs.table(speeds, None, "imaginary-2c", {}), "report")
    assert costs.long(3 * 86400) == "3.00 days"
