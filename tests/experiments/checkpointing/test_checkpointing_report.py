"""The checkpointing experiment's tables, figures and sentences, made from records that nobody measured."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from tests.reporting import synthetic, synthetic_inside
from tests.reporting.conftest import markdown

from stepbench.experiments import experiment as experiments
from stepbench.experiments.checkpointing import groupings
from stepbench.pipeline.state import States
from stepbench.reporting import frames
from stepbench.reporting.frames import Results

STEP: dict[str, Any] = {"source": ["measured"], "size": ["small"], "context": [512]}
GRID: list[dict[str, Any]] = [
    {"source": ["measured"], "size": ["small"], "context": [512], "groups": ["none", "1", "2", "3", "4", "6", "12"]},
    {"source": ["measured"], "size": ["small"], "context": [512], "groups": ["4-1", "4-2"]},
]
EXPERIMENT = experiments.load("checkpointing")


def results(root: Path, grid: list[dict[str, Any]] = GRID, **more: Any) -> Results:
    bench = synthetic.bench(root, checkpointing=grid)
    synthetic_inside.fill(bench, "checkpointing", **more)
    return frames.load(States(bench), EXPERIMENT)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def drawn(full: Results) -> dict[str, Figure]:
    return EXPERIMENT.plot(full)


def test_each_grouping_stands_beside_none(full: Results) -> None:
    table = EXPERIMENT.tabulate(full)["groups"]
    rows = {row["grouping"]: row for row in table.rows}
    assert list(rows) == [
        "none",
        *(f"groups of {k}" for k in (1, 2, 3, 4, 6, 12)),
        "groups of 4, each in groups of 1",
        "groups of 4, each in groups of 2",
    ]
    assert rows["none"]["peak_ratio"] is None
    assert rows["groups of 1"]["peak_ratio"] == pytest.approx((12 + 30) / 360)
    assert rows["groups of 3"]["kept_activation_bytes"] == 4 * 2**20
    assert rows["groups of 1"]["slowdown_ratio"] == pytest.approx(4 / 3, rel=0.1)
    assert rows["none"]["slowdown_ratio"] is None


def test_the_best_of_a_level_is_the_smallest_peak(full: Results) -> None:
    (found,) = groupings.models(full.groups())
    assert [each.name for each in groupings.best(found, nested=False)] == ["groups of 1"]
    assert [each.name for each in groupings.best(found, nested=True)] == ["groups of 4, each in groups of 1"]


def test_sentences_hold_the_measured_best_against_the_theory(full: Results) -> None:
    text = "\n".join([*map(str, EXPERIMENT.find(full))])
    assert "Of 6 group sizes, 1 block gives the smallest peak of activations: 42.0 MiB, 0.117× that without" in text
    assert "This is not near √12 = 3.46" in text
    assert "One process each: no verdict." in text
    assert "Groups of 4, each in groups of 1 give a smaller peak than groups of 1: 37.0 MiB against 42.0 MiB" in text
    assert (
        "One block saves 30.0 MiB for its backward pass, most of it by Softmax (67 %), Mul (30 %) and Mm (3.3 %)."
        in text
    )


def test_with_five_processes_a_side_there_is_a_verdict(tmp_path: Path) -> None:
    grid = [STEP | {"groups": ["none", "1"], "replicate": [0, 1, 2, 3, 4]}]
    text = "\n".join([*map(str, EXPERIMENT.find(results(tmp_path, grid, spread=0.005)))])
    assert "One more forward pass is a third more FLOPs." in text
    assert "no verdict" not in text


def test_what_keeps_nothing_is_not_shown(full: Results) -> None:
    table = EXPERIMENT.tabulate(full)["saved"]
    assert [row["operation"] for row in table.rows] == ["Softmax", "Mul", "Mm"]
    assert sum(row["share_ratio"] for row in table.rows) == pytest.approx(1)


def test_figures_draw_each_grouping_once(drawn: dict[str, Figure]) -> None:
    assert set(drawn) == set(EXPERIMENT.figure_names)
    labels = [text.get_text() for text in drawn["tradeoff"].axes[0].texts]
    assert labels == ["none", "1", "2", "3", "4", "6", "12", "4 of 1", "4 of 2"]


def test_two_models_are_told_apart(tmp_path: Path) -> None:
    grid = [{"source": ["measured"], "size": ["nano", "small"], "context": [512], "groups": ["none", "1", "2"]}]
    found = results(tmp_path, grid)
    assert len(EXPERIMENT.plot(found)["tradeoff"].axes) == 2
    text = "\n".join([*map(str, EXPERIMENT.find(found))])
    assert "(nano)" in text
    assert "(small)" in text


def test_nothing_measured_is_said_and_not_drawn(tmp_path: Path) -> None:
    empty = frames.load(States(synthetic.bench(tmp_path, checkpointing=GRID)), EXPERIMENT)
    assert [*map(str, EXPERIMENT.find(empty))] == []
    assert all(str(figure.get_label()).startswith("No ") for figure in EXPERIMENT.plot(empty).values())
    assert [bool(table.rows) for table in EXPERIMENT.tabulate(empty).values()] == [True, False]


def test_a_grouping_that_cannot_be_is_told(tmp_path: Path) -> None:
    bench = synthetic.bench(
        tmp_path, checkpointing=[{"source": ["measured"], "size": ["nano"], "context": [64], "groups": ["9"]}]
    )
    (cell,) = bench.grid("checkpointing")
    synthetic.write(bench, "checkpointing", cell, status="unsupported", reason="groups must fall")
    table = EXPERIMENT.tabulate(frames.load(States(bench), EXPERIMENT))["groups"]
    assert "unsupported: groups must fall" in markdown(table)
