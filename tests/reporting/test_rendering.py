"""Every table, figure and finding that is declared is made, from the records that are declared and from no others."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.reporting import synthetic
from tests.reporting.conftest import INSIDE_GRIDS, ON_RANKS_GRIDS, SMALL_GRIDS, markdown, results

from stepbench.experiments import experiment as experiments
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.state import State, States
from stepbench.reporting import findings, frames, rendering, tables

GRIDS = {**SMALL_GRIDS, **INSIDE_GRIDS, **ON_RANKS_GRIDS}
SOURCE = synthetic.ROOT / "src" / "stepbench"


@pytest.mark.parametrize("name", ON_RANKS_GRIDS)
def test_all_that_is_declared_is_made(on_ranks: Bench, name: str) -> None:
    experiment, found = experiments.load(name), results(on_ranks, name)
    made = experiment.tabulate(found)
    assert tuple(made) == experiment.table_names
    assert tuple(experiment.plot(found)) == experiment.figure_names
    assert all(table.rows for table in made.values())
    assert all("| None" not in markdown(table) for table in made.values())


@pytest.mark.parametrize("name", [name for name in ON_RANKS_GRIDS if name != "encoder_decoder"])
def test_nothing_measured_is_said_and_not_drawn(tmp_path: Path, name: str) -> None:
    experiment = experiments.load(name)
    empty = results(synthetic.bench(tmp_path, **ON_RANKS_GRIDS), name)
    assert experiment.find(empty) == []
    assert all(str(figure.get_label()).startswith(("No ", "There is ")) for figure in experiment.plot(empty).values())
    assert all(
        "– |" in text or "There is no" in text or "No " in text
        # What others published ships with the project.
        for text in (markdown(made) for each, made in experiment.tabulate(empty).items() if each != "leaderboard")
    )


def test_a_rendering_writes_what_its_rule_names(full: Bench, tmp_path: Path) -> None:
    experiment = experiments.load("warmup")
    rendering.render(experiment, results(full, "warmup"), tmp_path)
    machine = f"results/{full.machine}"
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert written == {
        *(f"{machine}/tables/warmup/warmup.{kind}" for kind in ("csv", "md", "json")),
        *(f"{machine}/figures/warmup/warmup.{kind}" for kind in ("svg", "png", "json")),
        f"{machine}/findings/warmup.json",
    }
    kept = findings.read(tmp_path / machine / "findings" / "warmup.json")
    assert kept == [findings.told(each) for each in rendering.find(experiment, results(full, "warmup"))]
    assert {each.kind for each in kept} == {"first step", "without warm-up", "settled", "warnings"}
    assert {each.certainty for each in kept if each.kind != "warnings"} == {"no verdict"}
    assert all((full.root / path).is_file() for each in kept for path in each.records)
    shown = tables.read(tmp_path / machine / "tables" / "warmup" / "warmup.json")
    assert [row.values["warmup"] for row in shown.rows] == [0, 1, 5]


# -- what a rendering reads --------------------------------------------------------------------------------------------


class Watched(States):
    """States that note of which experiments they were asked."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(bench)
        self.asked: set[str] = set()

    def of(self, cell: Cell) -> State:
        self.asked.add(cell.experiment)
        return super().of(cell)


class Noted(Mapping[str, Any]):
    """A mapping that notes which of its keys are looked at."""

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content, self.seen = content, set[str]()

    def __getitem__(self, key: str) -> Any:
        self.seen.add(key)
        return self.content[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)


@pytest.mark.parametrize("name", GRIDS)
def test_a_rendering_reads_the_records_that_it_declares(everything: Bench, name: str, tmp_path: Path) -> None:
    experiment, states = experiments.load(name), Watched(everything)
    found = frames.load(states, experiment)
    others = Noted(found.others)
    rendering.render(experiment, replace(found, others=others), tmp_path)
    assert states.asked == {name, *experiment.reads}
    # Peaks are in every warning; they come from the records that hold rates.
    wanted = {"fp32", "bf16"} if "ceilings" in {name, *experiment.reads} else set()
    assert set(found.peaks.measured) == wanted
    assert others.seen | {"ceilings"} == {"ceilings", *experiment.reads}
    without = replace(experiment, reads=tuple(each for each in experiment.reads if each != "ceilings"))
    if name != "ceilings":
        assert frames.load(states, without).peaks.measured == {}


def test_nothing_else_gets_at_records() -> None:
    """`frames.load` is the only door: what reports asks for no state and reads no record."""
    files = [*(SOURCE / "reporting").glob("*.py")]
    files += [
        SOURCE / "experiments" / name / f"{part}.py" for name in GRIDS for part in ("tables", "figures", "findings")
    ]
    doors = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("states.of", "records.read", "States"):
                doors.add(file.name)
    assert doors == {"frames.py"}
