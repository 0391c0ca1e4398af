"""The fits experiment's tables, figure and sentences, made from records that nobody measured."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
from tests.reporting import synthetic, synthetic_inside
from tests.reporting.conftest import INSIDE_GRIDS

from stepbench.experiments import experiment as experiments
from stepbench.experiments.fits import figures, findings, question, tables, ways
from stepbench.experiments.fits.cell import Cell
from stepbench.experiments.fits.measure import measure
from stepbench.measure import fit
from stepbench.measure.envelope import Envelope, Piece
from stepbench.measure.measurement import PredictedOutOfMemoryError, Setting, UnsupportedError
from stepbench.models.sizes import ModelSize
from stepbench.pipeline.state import States
from stepbench.reporting import frames
from stepbench.reporting.frames import Results
from stepbench.reporting.tables import Table
from stepbench.workloads.spec import StepSpec

EXPERIMENT = experiments.load("fits")
GIB = 2**30
USABLE_GIB = 79.1 - 0.75  # of an H100; CUDA's context and the allocator take the rest
NANO: dict[str, Any] = {"d_model": 32, "d_ff": 64, "layers": 2, "heads": 2}


@pytest.fixture
def full(tmp_path: Path) -> Results:
    bench = synthetic.bench(tmp_path, fits=INSIDE_GRIDS["fits"])
    synthetic_inside.fill(bench, "fits")
    return frames.load(States(bench), EXPERIMENT)


def test_tables_give_the_edge_on_each_card(full: Results) -> None:
    found = EXPERIMENT.tabulate(full)
    rows = {(row["size"], row["groups"]): row for row in found["batches"].rows}
    plain = rows["xl", "none"]
    # At context 1024 each sequence takes a GiB.
    card = "on H100 (80 GB)"
    assert plain[card] == int(USABLE_GIB - 16 * plain["parameters"] / GIB)
    assert rows["xl", "1"][card] == int(8 * (USABLE_GIB - 16 * plain["parameters"] / GIB))
    assert plain["on RTX 4060 (8 GB)"] == 0
    contexts = {(row["size"], row["groups"]): row for row in found["contexts"].rows}
    assert contexts["xl", "none"][card] == int((USABLE_GIB * GIB - 16 * plain["parameters"]) / 2**20)
    (edge,) = found["edges"].rows
    assert edge["difference_ratio"] == pytest.approx(1 / 39)


def test_the_batch_that_a_table_tells_is_started_and_no_larger_one(
    full: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit, "capacity_bytes", lambda _device: round(79.1 * GIB))
    table = EXPERIMENT.tabulate(full)["batches"]
    assert "Not counted are 0.75 GiB of a card" in table.caption
    way = next(each for each in ways.predicted(full) if each.group.point["size"] == "xl")
    batch = next(row for row in table.rows if row["size"] == "xl")["on H100 (80 GB)"]
    fit.check(way.envelope.peak_bytes(batch, ways.CONTEXT), "cuda")
    with pytest.raises(PredictedOutOfMemoryError):
        fit.check(way.envelope.peak_bytes(batch + 1, ways.CONTEXT), "cuda")


def test_sentences_name_the_smallest_card_and_the_edge(full: Results) -> None:
    text = "\n".join(map(str, EXPERIMENT.find(full)))
    assert "xl needs" in text
    assert "nano at context 64 runs with a batch of 39 within 1.00 GiB and not with 40, and 40 was predicted" in text


def test_the_figure_has_a_line_for_each_size_in_each_panel(full: Results) -> None:
    figure = EXPERIMENT.plot(full)["batches"]
    panels = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in panels] == ["groups none", "groups 1"]
    assert {line.get_label() for line in panels[0].lines} >= {"nano", "xl"}


def test_the_bytes_of_several_ranks_are_said_to_be_those_of_one(full: Results, tmp_path: Path) -> None:
    grid = [{"source": ["predicted"], "size": ["nano", "xl"], "groups": ["none", "1"], "ranks": [1, 8]}]
    bench = synthetic.bench(tmp_path / "ranks", fits=grid)
    synthetic_inside.fill(bench, "fits")
    several = frames.load(States(bench), EXPERIMENT)
    for results, expected in ((several, True), (full, False)):
        assert ("on each rank" in "\n".join(map(str, EXPERIMENT.find(results)))) is expected
        assert ("of one rank" in str(EXPERIMENT.plot(results)["batches"].get_label())) is expected
        assert all(("of one rank" in table.caption) is expected for table in _on_cards(results))


def _on_cards(results: Results) -> list[Table]:
    return [tables.batches(results), tables.contexts(results)]


def test_the_edge_of_a_step_that_runs_is_as_predicted() -> None:
    setting = Setting("cpu", {"seed": 0, "threads": 1}, {"vocabulary": 50, "size": NANO})
    found = measure(Cell("measured", "tiny", context=64, memory_mib=4), setting)
    last, expected = found.scalars["largest_batch"], found.scalars["predicted_largest_batch"]
    assert last > 5
    assert abs(expected / last - 1) < 0.03
    assert found.details["tried"][-1] in ([last, True], [last + 1, False])


def test_an_edge_needs_a_context_and_a_cpu_a_limit() -> None:
    setting = Setting("cpu", {"seed": 0, "threads": 1}, {"vocabulary": 50, "size": NANO})
    with pytest.raises(UnsupportedError, match="needs a context"):
        measure(Cell("measured", "tiny", memory_mib=4), setting)
    with pytest.raises(UnsupportedError, match="`memory_mib` must be given"):
        measure(Cell("measured", "tiny", context=64), setting)


def test_an_edge_is_measured_on_one_rank() -> None:
    setting = Setting("cpu", {"seed": 0, "threads": 1}, {"vocabulary": 50, "size": NANO})
    with pytest.raises(UnsupportedError, match="on one rank, got 2"):
        measure(Cell("measured", "tiny", context=64, ranks=2, memory_mib=4), setting)


def test_changes_that_are_impossible_keep_no_others_from_being_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(spec: StepSpec, _: Setting) -> Envelope:
        # As of a model of the user's own.
        if spec.head != "whole":
            raise UnsupportedError("the head must be whole")
        if spec.strategy:
            raise ValueError("nothing to shard")
        return Envelope((Piece(None, ((1e9, 0.0, 0.0, 0.0, 0.0, 0.0),)),))

    monkeypatch.setattr(question.fits, "find", find)
    spec = StepSpec(ModelSize(**NANO), 50, context=64, batch=1)
    found = question.ask(spec, Setting("cpu", {"seed": 0}), 1000)
    possible = [name for name in question.CHANGES if name not in ("chunked head", "FSDP on 8 ranks")]
    assert found[-1].changes == tuple(possible)


def test_two_ways_are_told_apart_only_where_they_need_different_amounts(full: Results) -> None:
    found = ways.predicted(full)
    (told,) = findings._saved(found)
    first, _, second = str(told).partition(" and batch 1 needs ")[2].partition(" and ")
    assert first.split(" with ")[0] != second.split(" with ")[0]
    largest = max(found, key=lambda way: way.group.scalar("parameters")).group.point["size"]
    assert str(told).startswith(largest)
    alike = {way.group.point["size"]: way.envelope for way in found if way.group.point["groups"] == "none"}
    same = [dataclasses.replace(way, envelope=alike[way.group.point["size"]]) for way in found]
    assert findings._saved(same) == []


def test_names_of_cards_do_not_cover_each_other() -> None:
    heights = [0.1, 0.2, 0.21, 0.22, 0.5, 0.9]
    moved = figures._spread(heights)
    assert all(after - before >= figures.GAP - 1e-9 for before, after in itertools.pairwise(moved))
    assert moved[4:] == [0.5, 0.9]
    assert max(abs(new - old) for new, old in zip(moved, heights, strict=True)) <= figures.GAP
