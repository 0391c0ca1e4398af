"""Sentences that were seen to contradict the tables beneath them, each with the records that made them do so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from tests.reporting import synthetic, synthetic_inside, synthetic_on_ranks
from tests.reporting.conftest import STEP, results

from stepbench.experiments import experiment as experiments
from stepbench.pipeline.bench import Bench
from stepbench.reporting import rendering

LOAD = {**synthetic.FACTS, "during": {"wall_s": 10.0, "cores": 2, "others_cpu_s": 9.0, "stolen_cpu_s": 0.0}}


def told(bench: Bench, name: str) -> list[str]:
    """Return all sentences about an experiment, those that are said of every experiment among them."""
    return [*map(str, rendering.find(experiments.load(name), results(bench, name)))]


def kinds(bench: Bench, name: str, table: str) -> list[set[str]]:
    """Return the kinds of warnings of each row of a table."""
    rows = experiments.load(name).tabulate(results(bench, name))[table].rows
    return [{mark.kind for mark in row["warnings"]} for row in rows]


def test_a_profile_does_not_add_up_and_not_add_up(tmp_path: Path) -> None:
    """Under the profiler the phases added up, without it they did not: two lines said so of “every profile”."""
    bench = synthetic.bench(tmp_path, profile=[{"size": ["nano"], "context": [128], "passes": ["train_step"]}])
    (cell,) = bench.grid("profile")
    content = synthetic_inside.profile(bench, cell, np.random.default_rng(0), 0.001)
    for phase in ("forward", "backward", "optimizer"):
        content["samples"][f"{phase}_s"] = [0.5 * content["samples"]["step_s"][0]] * 7
    synthetic.write(bench, "profile", cell, **content)
    about = [each for each in told(bench, "profile") if "add up" in each]
    assert about[0] == (
        "Under the profiler the phases of every step add up to it within 10 %. Timed without it, they do not in a "
        "training step of nano. Quality C: parts and whole differ."
    )
    assert about[1:] == ["The one point measured has phases that do not add up to the step."]


def test_no_point_is_called_noisy_that_the_table_does_not_mark(tmp_path: Path) -> None:
    """The table is about sums of phases, and the sentence was about whole steps, which are timed later."""
    bench = synthetic.bench(tmp_path, warmup=[{"size": ["nano"], "warmup": [5, 10]}])
    for cell in bench.grid("warmup"):
        content = synthetic.decoder_step(bench, cell, np.random.default_rng(cell.warmup), 0.001)
        steady = sum(content["samples"][f"{phase}_s"][0] for phase in ("forward", "backward", "optimizer"))
        content["samples"]["step_s"] = [steady * factor for factor in (1, 1.5, 1, 1.5, 1, 1.5, 1)]
        synthetic.write(bench, "warmup", cell, **content)
    assert kinds(bench, "warmup", "warmup") == [set(), set()]
    assert "None of the 2 points measured has a warning." in told(bench, "warmup")
    assert not any("noisy" in each for each in told(bench, "warmup"))


def test_bucket_sizes_are_not_ordered_against_the_steps_that_were_timed_in_turn(tmp_path: Path) -> None:
    """“1 MiB gives the shortest step”, and of the steps in turn with torch's own those of 5 MiB were shorter."""
    grids = {
        "data_parallel": [STEP | {"strategy": ["bucketed"], "bucket_mib": [1, 5]}],
        "collectives": [
            {"operation": ["all_reduce"], "backend": ["gloo"], "ranks": [2], "payload_bytes": [4096, 2**20, 2**24]}
        ],
    }
    bench = synthetic.bench(tmp_path, **grids)
    synthetic_on_ranks.fill(bench, "collectives")
    for cell in bench.grid("data_parallel"):
        content = synthetic_on_ranks.data_parallel(bench, cell, np.random.default_rng(0), 0.001)
        whole, in_turn = {1: (0.040, 0.050), 5: (0.041, 0.040)}[cell.bucket_mib]
        content["samples"]["step_s"] = [[whole] * 7] * 2
        content["samples"]["paired_s"] = [[in_turn] * 14] * 2
        synthetic.write(bench, "data_parallel", cell, **content)
    (sentence,) = (each for each in told(bench, "data_parallel") if each.startswith("Of the bucket sizes"))
    assert sentence == (
        "Of the bucket sizes 1 MiB and 5 MiB, 1 MiB has the shortest step: 40.0 ms; but of the steps that were timed "
        "in turn with torch's own, those of 5 MiB are the shortest (40.0 ms against 50.0 ms), so the sizes cannot be "
        "ordered. One process each: no verdict."
    )


def test_a_fit_gives_no_latency_that_a_small_message_has_not(tmp_path: Path) -> None:
    """“986 µs however small”, and 4 KiB took 2.2 ms."""
    grid = {"operation": ["all_reduce"], "backend": ["gloo"], "ranks": [2], "payload_bytes": [4096, 2**20, 2**24]}
    bench = synthetic.bench(tmp_path, collectives=[grid])
    for cell, seconds in zip(bench.grid("collectives"), (2.2e-3, 0.9e-3, 10e-3), strict=True):
        content = {"samples": {"call_s": [[seconds] * 7] * 2}, "scalars": {"message_bytes": cell.payload_bytes}}
        synthetic.write(bench, "collectives", cell, **content)
    about = " ".join(each for each in told(bench, "collectives") if each.startswith("All-reduce on 2 ranks"))
    assert "does not describe small messages: 4.00 KiB took 2.20 ms, the fit gives" in about
    assert "latency" not in about
    assert "however small" not in about


def test_the_first_step_of_a_disturbed_cell_is_hedged(tmp_path: Path) -> None:
    """“The first step of nano takes 1.2 s” stood there although other processes had the cores meanwhile."""
    bench = synthetic.bench(tmp_path, warmup=[{"size": ["nano"], "warmup": [0, 10]}])
    for cell in bench.grid("warmup"):
        content = synthetic.decoder_step(bench, cell, np.random.default_rng(0), 0.001)
        synthetic.write(bench, "warmup", cell, **content, environment=LOAD if cell.warmup == 0 else synthetic.FACTS)
    first = next(each for each in told(bench, "warmup") if each.startswith("The first step of nano"))
    assert first.endswith("Quality C: disturbed (1 of 2 points).")
