"""Published entries beside what is predicted and measured, and the grids that are asked for by one command."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.reporting import synthetic

from stepbench.experiments import experiment as experiments
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States
from stepbench.reporting import frames, leaderboard

BOARDS = ("experiments/attention/leaderboard.json", "experiments/fsdp/leaderboard.json")
CALL = {"seq": [16384], "head_dim": [64], "heads": [16], "dtype": ["bf16"]}


@pytest.mark.parametrize("file", BOARDS)
def test_entries_say_where_they_are_from_and_whether_they_were_verified(file: str) -> None:
    board = leaderboard.read(file)
    assert board["source"].startswith("Stanford CS336")
    rows = leaderboard.published(board)
    assert [row["time_median_s"] for row in rows] == sorted(row["time_median_s"] for row in rows)
    assert {row["kind"] for row in rows} == {leaderboard.PUBLISHED}
    assert rows[-1]["note"] == "verified"


def test_attention_is_predicted_without_a_gpu_and_measured_points_are_sorted_in(tmp_path: Path) -> None:
    bench = synthetic.bench(tmp_path, attention=[{"implementation": ["naive", "sdpa_flash", "flex"], **CALL}])
    synthetic.fill(bench)
    experiment = experiments.load("attention")
    rows = experiment.tabulate(frames.load(States(bench), experiment))["leaderboard"].rows
    times = [row["time_median_s"] for row in rows if row["time_median_s"] is not None]
    assert times == sorted(times)
    predicted = {row["entry"]: row for row in rows if row["kind"] == leaderboard.PREDICTED}
    # Nine products of 16 · 16 384² · 64 FLOPs each, at 473 to 671 TFLOP/s.
    assert predicted["triton"]["time_median_s"] == pytest.approx(4.1e-3, rel=0.02)
    assert {row["entry"] for row in rows if row["kind"] == leaderboard.MEASURED} == {"naive", "sdpa flash", "flex"}
    assert rows[-1]["status"] == "unsupported"


def test_the_step_is_predicted_where_the_grid_has_it(tmp_path: Path) -> None:
    settings = synthetic.settings(fsdp=[])
    bench = Bench.open(synthetic.ROOT, files=[synthetic.ROOT / "leaderboards" / "step.yaml"], settings={"scale": "cpu"})
    settings["experiments"] = {"fsdp": {"cpu": bench.settings["experiments"]["fsdp"]["cpu"]}}
    made = Bench(settings, root=tmp_path, schema=synthetic.ROOT / "config.schema.yaml")
    (cell,) = made.grid("fsdp")
    synthetic.write(
        made,
        "fsdp",
        cell,
        scalars={
            "forward_flops": 10**15,
            "least_flops": 3 * 10**15,
            "predicted_peak_memory_bytes": 80 * 2**30,
            "parameters": 1,
        },
    )
    experiment = experiments.load("fsdp")
    rows = experiment.tabulate(frames.load(States(made), experiment))["leaderboard"].rows
    (row,) = (row for row in rows if row["kind"] == leaderboard.PREDICTED)
    assert row["time_median_s"] == pytest.approx(3 * 10**15 / 2250e12)
    assert row["note"] == "peak 80.0 GiB per rank; time: its least FLOPs at the peak of NVIDIA B200, no less"
    assert [each["kind"] for each in rows].count(leaderboard.PUBLISHED) == 6


@pytest.mark.parametrize("name", ["attention", "step"])
def test_the_grids_are_valid_on_every_scale(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = synthetic.ROOT / "leaderboards" / f"{name}.yaml"
    bench = Bench.open(synthetic.ROOT, files=[file], settings={"device": "cpu"})
    experiment = {"attention": "attention", "step": "fsdp"}[name]
    monkeypatch.setattr(bench, "scale", "gpu")
    board = leaderboard.read(f"experiments/{experiment}/leaderboard.json")
    assert bench.grid(experiment)
    assert all(cell.values.items() >= board["shape"].items() for cell in bench.grid(experiment))
