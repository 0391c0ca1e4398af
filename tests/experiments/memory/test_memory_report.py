"""The memory experiment's tables, figures and sentences, made from records that nobody measured."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from tests.reporting import synthetic, synthetic_inside
from tests.reporting.conftest import markdown

from stepbench.experiments import experiment as experiments
from stepbench.experiments.memory import figures as memory_figures
from stepbench.experiments.memory import shapes
from stepbench.experiments.memory import tables as memory_tables
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States
from stepbench.reporting import figures, frames, units
from stepbench.reporting.frames import Results

GRID: list[dict[str, Any]] = [
    {"source": ["measured"], "size": ["nano", "micro"], "context": [128], "batch": [1]},
    {"source": ["measured"], "size": ["nano"], "context": [512], "batch": [1], "passes": ["forward", "train_step"]},
    {"source": ["predicted"], "size": ["nano", "micro", "xl", "2.7B"], "context": [512]},
]
EXPERIMENT = experiments.load("memory")


def results(root: Path, grid: list[dict[str, Any]] = GRID, fill: bool = True) -> Results:
    bench = synthetic.bench(root, memory=grid)
    if fill:
        synthetic_inside.fill(bench, "memory")
    return frames.load(States(bench), EXPERIMENT)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def drawn(full: Results) -> dict[str, Figure]:
    return EXPERIMENT.plot(full)


def test_predicted_and_measured_of_one_step_are_one_row(tmp_path: Path) -> None:
    both = {"source": ["predicted", "measured"], "size": ["nano"], "context": [128]}
    table = memory_tables.peaks(results(tmp_path, [both]))
    (row,) = table.rows
    assert row["measured_bytes"] == row["predicted_bytes"] + 5000
    assert row["difference_ratio"] == pytest.approx(row["predicted_bytes"] / row["measured_bytes"] - 1)
    assert set(row["records"]) == {"predicted", "measured"}
    parts = [row[f"{category}_bytes"] for category in shapes.CATEGORIES]
    assert sum(parts) == row["measured_bytes"]


def test_what_was_measured_alone_still_has_its_prediction(full: Results) -> None:
    rows = {(row["size"], row["context"], row["batch"], row["passes"]): row for row in memory_tables.peaks(full).rows}
    assert rows["micro", 128, 1, "train_step"]["predicted_bytes"] is not None
    assert rows["2.7B", 512, 4, "train_step"]["measured_bytes"] is None
    assert len(rows) == 8


def test_the_devices_own_peak_is_what_counts_where_there_is_one(tmp_path: Path) -> None:
    bench = synthetic.bench(tmp_path, memory=[{"source": ["measured"], "size": ["nano"], "context": [128]}])
    (cell,) = bench.grid("memory")
    fields = synthetic_inside.memory(bench, cell, None, 0.0)  # type: ignore[arg-type]
    fields["scalars"] |= {"allocator_forward_peak_bytes": 5, "allocator_backward_peak_bytes": 9}
    synthetic.write(bench, "memory", cell, **fields)
    (row,) = memory_tables.peaks(frames.load(States(bench), EXPERIMENT)).rows
    assert row["measured_bytes"] == 9


def test_every_phase_has_a_row_that_adds_up(full: Results) -> None:
    rows = memory_tables.phases(full).rows
    assert {row["phase"] for row in rows} == {"forward", "backward", "optimizer"}
    for row in rows:
        assert sum(row[f"{category}_bytes"] for category in shapes.CATEGORIES) == row["peak_bytes"]


def test_a_cell_that_was_not_started_says_so(tmp_path: Path) -> None:
    bench = synthetic.bench(tmp_path, memory=[{"source": ["predicted", "measured"], "size": ["xl"], "context": [2048]}])
    predicted, measured = bench.grid("memory")
    synthetic.write(bench, "memory", predicted, **synthetic_inside.memory(bench, predicted, None, 0.0))  # type: ignore[arg-type]
    reason = "predicted to need 90.0 GiB, and the device has 80.0 GiB"
    synthetic.write(bench, "memory", measured, status="oom", reason=reason)
    table = memory_tables.peaks(frames.load(States(bench), EXPERIMENT))
    assert (table.rows[0]["status"], table.rows[0]["reason"]) == ("predicted ok, measured oom", f"measured: {reason}")
    assert "predicted ok, measured oom: measured: predicted to need 90.0 GiB" in markdown(table)


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "–"), (0.0, "under 0.01 %"), (-0.00002, "under 0.01 %"), (0.0123, "+1.2 %"), (-0.05, "−5.0 %")],
)
def test_differences_are_signed(share: float | None, text: str) -> None:
    assert units.difference(share) == text


def test_sentences_name_what_fills_what_fits_and_what_grows(full: Results) -> None:
    text = "\n".join([*map(str, EXPERIMENT.find(full))])
    assert "the largest category is optimizer state" in text
    assert "The predicted peak of 4 shapes is at most" in text
    assert "4× the context (128 to 512) makes the peak of nano" in text
    assert "A training step of nano" in text
    assert "A training step fits into the 16.0 GiB of this machine for nano and micro; it would not for xl (" in text


@pytest.mark.parametrize(("ratio", "far"), [(-0.00001, "is under 0.01 % off"), (-0.031, "is at most 3.1 % off")])
def test_how_far_a_prediction_is_off_can_be_read_aloud(
    full: Results, monkeypatch: pytest.MonkeyPatch, ratio: float, far: str
) -> None:
    monkeypatch.setattr(shapes.Shape, "difference_ratio", ratio)
    (sentence,) = [each for each in [*map(str, EXPERIMENT.find(full))] if "off the measured one" in each]
    assert far in sentence


def test_all_sizes_that_fit_are_told(tmp_path: Path) -> None:
    small = results(tmp_path, [{"source": ["predicted"], "size": ["nano", "micro"], "context": [64]}])
    assert any("for every size here" in each for each in [*map(str, EXPERIMENT.find(small))])


def test_figures_are_drawn_and_describe_what_they_hold_constant(drawn: dict[str, Figure]) -> None:
    assert set(drawn) == set(EXPERIMENT.figure_names)
    assert "parameter dtype fp32" in str(drawn["timeline"].get_label())
    assert "batch 4" in str(drawn["sizes"].get_label())
    assert len(drawn["timeline"].axes) == 3  # two measured steps that differ most, and the largest predicted
    assert [text.get_text() for text in drawn["sizes"].axes[0].get_yticklabels()] == ["nano", "micro", "xl", "2.7B"]


def test_the_timeline_shows_the_step_with_most_activations_first(drawn: dict[str, Figure]) -> None:
    titles = [axes.get_title(loc="left") for axes in drawn["timeline"].axes]
    assert titles[0].startswith("nano, context 512")
    assert titles[-1].endswith("predicted")


def test_nothing_measured_is_said_and_not_drawn(tmp_path: Path) -> None:
    empty = results(tmp_path, fill=False)
    assert [*map(str, EXPERIMENT.find(empty))] == []
    for figure in EXPERIMENT.plot(empty).values():
        assert str(figure.get_label()).startswith("No ")
    rows = memory_tables.peaks(empty).rows
    assert {row["status"] for row in rows} == {"not measured"}
    figures.write(EXPERIMENT.plot(empty), tmp_path / "figures")


def test_ticks_of_memory_are_powers_of_two() -> None:
    assert memory_figures._bytes_tick(2.0**29) == "512 MiB"
    assert memory_figures._bytes_tick(2.0**36) == "64 GiB"


@pytest.mark.parametrize(
    ("low", "high", "told"),
    [
        (2.0**26, 2.0**36, ["64 MiB", "256 MiB", "1 GiB", "4 GiB", "16 GiB", "64 GiB"]),
        (72.6 * 2**20, 98.1 * 2**20, ["80 MiB", "88 MiB", "96 MiB"]),
    ],
)
def test_an_axis_of_memory_can_be_read_however_little_it_spans(low: float, high: float, told: list[str]) -> None:
    axes = figures.new(2, "a picture").subplots()
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    memory_figures._powers_of_two(axes, "y")
    assert [label.get_text() for label in axes.get_yticklabels()] == told


def test_a_grid_without_cells_has_empty_tables(tmp_path: Path) -> None:
    bench: Bench = synthetic.bench(tmp_path, warmup=[{"size": ["nano"], "warmup": [0]}])
    found = frames.load(States(bench), EXPERIMENT)
    for table in EXPERIMENT.tabulate(found).values():
        assert table.empty in markdown(table)


def test_a_head_is_compared_with_all_logits_at_once(tmp_path: Path) -> None:
    grid = {"source": ["measured"], "size": ["nano"], "context": [128], "head": ["whole", "chunked"]}
    (finding,) = (each for each in EXPERIMENT.find(results(tmp_path, [grid])) if each.kind == "head")
    assert finding.text.startswith("Peak with the head chunked over all logits at once (nano): measured 1.00× (")
    assert "predicted" in finding.text


def test_a_timeline_of_many_moments_keeps_its_peaks_and_valleys() -> None:
    moments = [index / 1000 for index in range(100_000)]
    totals = [1000] * len(moments)
    totals[54_321], totals[54_322], totals[7] = 5000, 1, 3000
    kept = memory_figures._seen(moments, totals, 100.0)
    assert {0, 7, 54_321, 54_322, len(moments) - 1} <= set(kept)
    assert kept == sorted(kept)
    assert len(kept) <= 3 * memory_figures.STRIPS + 1
