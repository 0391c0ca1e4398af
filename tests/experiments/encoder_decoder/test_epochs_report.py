"""Tables, picture and sentences of whole epochs, made from records that nobody measured."""

from pathlib import Path
from typing import Any

import pytest
from tests.reporting import synthetic, synthetic_on_ranks
from tests.reporting.conftest import markdown

from stepbench.experiments import experiment as experiments
from stepbench.experiments.encoder_decoder import tables as epoch_tables
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States
from stepbench.reporting import frames
from stepbench.reporting.frames import Results

EPOCH: dict[str, Any] = {"preset": ["3.5M"], "megabytes": [3], "batch": [4], "steps": [8], "precision": ["fp32"]}
GRID = [EPOCH | {"data": ["memory", "disk"], "ranks": [1, 2]}]


def results(bench: Bench) -> Results:
    return frames.load(States(bench), experiments.load("encoder_decoder"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = synthetic.bench(tmp_path_factory.mktemp("epochs"), encoder_decoder=GRID)
    synthetic_on_ranks.fill(made, spread=0.001)
    return made


def test_all_that_is_declared_is_made(bench: Bench) -> None:
    experiment, found = experiments.load("encoder_decoder"), results(bench)
    made = experiment.tabulate(found)
    assert tuple(made) == experiment.table_names
    assert tuple(experiment.plot(found)) == experiment.figure_names
    assert [len(table.rows) for table in made.values()] == [4, 12, 2, 2]
    assert all("None" not in markdown(table) for table in made.values())


def test_nothing_measured_is_said_and_not_drawn(tmp_path: Path) -> None:
    experiment = experiments.load("encoder_decoder")
    found = results(synthetic.bench(tmp_path, encoder_decoder=GRID))
    assert [*map(str, experiment.find(found))] == []
    assert str(experiment.plot(found)["throughput"].get_label()) == "No epoch has numbers."
    texts = [markdown(table) for table in experiment.tabulate(found).values()]
    assert "not measured" in texts[0]
    assert "No epoch has been measured." in texts[1]
    assert "The grid has no epoch on one rank and on more." in texts[3]


def test_rates_are_those_of_all_ranks_at_the_slowest_ones_median(bench: Bench) -> None:
    rows = {(row["data"], row["ranks"]): row for row in epoch_tables.summary(results(bench)).rows}
    for (data, ranks), row in rows.items():
        assert row["samples_per_s"] == pytest.approx(8 * 4 * ranks / row["epoch_median_s"])
        assert row["tokens_per_s"] == pytest.approx(256 * row["samples_per_s"])
        assert row["data_wait_ratio"] == pytest.approx(0.2 if data == "disk" else 0.01, rel=0.02)
    assert rows["memory", 1]["samples_per_s"] == pytest.approx(1000, rel=0.01)


def test_what_is_left_of_each_rank(bench: Bench) -> None:
    for row in epoch_tables.scaling(results(bench)).rows:
        assert row["ranks"] == 2
        assert row["speedup_ratio"] == pytest.approx(1.8, rel=0.01)
        assert row["efficiency_ratio"] == pytest.approx(0.9, rel=0.01)


def test_an_epoch_is_that_of_its_slowest_rank(bench: Bench) -> None:
    found = results(bench)
    (record,) = next(group for group in found.groups() if group.point["ranks"] == 2).records
    mine = [row for row in epoch_tables.epochs(found).rows if row["data"] == "memory" and row["ranks"] == 2]
    for row, first, second in zip(mine, *record.samples["epoch_s"], strict=True):
        assert row["epoch_s"] == max(first, second)
        assert row["samples_per_s"] == pytest.approx(64 / row["epoch_s"])
    assert [row["loss_nats"] for row in mine] == pytest.approx([8.7, 8.6, 8.5])


def test_the_disk_is_compared_with_memory_and_who_starves_is_named(bench: Bench) -> None:
    text = "\n".join([*map(str, experiments.load("encoder_decoder").find(results(bench)))])
    assert (
        "2 of 4 points wait for data for more than 10 % of the epoch; the longest wait is 20 %, with data disk" in text
    )
    assert text.count("From disk an epoch takes 1.2") == 2
    assert "One process each: no verdict." in text
    assert "2 ranks, each with the same batch, process 1.8" in text


def test_a_loader_that_keeps_up_is_said(tmp_path: Path) -> None:
    bench = synthetic.bench(tmp_path, encoder_decoder=[EPOCH | {"data": ["memory"], "ranks": [1]}])
    synthetic_on_ranks.fill(bench)
    sentences = [*map(str, experiments.load("encoder_decoder").find(results(bench)))]
    assert "The highest throughput is" in sentences[0]
    assert "the preset 3.5M" in sentences[0]
    assert sentences[1].startswith("The loader keeps up: the median wait for data is at most 1.")


@pytest.mark.parametrize(("share", "marked"), [(0.9, False), (1.2, True)])
def test_an_epoch_faster_than_the_peak_is_marked(tmp_path: Path, share: float, marked: bool) -> None:
    ceilings = [{"operation": ["matmul"], "dtype": ["fp32"], "replicate": [0]}]
    bench = synthetic.bench(tmp_path, encoder_decoder=[EPOCH | {"data": ["memory"], "ranks": [1]}], ceilings=ceilings)
    synthetic.fill(bench, "ceilings")
    synthetic_on_ranks.fill(bench, "encoder_decoder", spread=0.001)
    (cell,) = bench.grid("encoder_decoder")
    record = States(bench).of(cell).record
    assert record
    peak = results(bench).peaks.flops_per_s("fp32")
    assert peak
    work = int(share * peak * sorted(record.samples["epoch_s"][0])[1])
    synthetic.write(
        bench, "encoder_decoder", cell, samples=record.samples, scalars=record.scalars | {"epoch_flops": work}
    )
    text = markdown(epoch_tables.summary(results(bench)))
    assert ("impossible (the epoch 1.20× the measured peak)" in text) == marked
