"""The same quantity in two kinds of cells, made from records that nobody measured: some agree and some do not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests import same_against_same
from tests.reporting import synthetic, synthetic_inside, synthetic_on_ranks
from tests.reporting.conftest import STEP, results

from stepbench.experiments import experiment as experiments
from stepbench.pipeline.bench import Bench
from stepbench.reporting import findings
from stepbench.reporting.agreement import Agreement, Reading

GRIDS = {
    "end_to_end": [{"size": ["nano"], "context": [128], "passes": ["train_step", "forward", "forward_backward"]}],
    "warmup": [{"size": ["nano"], "warmup": [0, 5]}],
    "profile": [{"size": ["nano"], "context": [128], "passes": ["forward", "train_step"]}],
}


def bench(tmp_path: Path, *, forward: float = 1.0, profiled: float = 1.0, warm: float = 1.0) -> Bench:
    """A bench on which a forward pass alone, a step of profile and one of warm-up take multiples of the usual time."""
    made = synthetic.bench(tmp_path, **GRIDS)
    for name in GRIDS:
        for cell in made.grid(name):
            content = synthetic.decoder_step(made, cell, np.random.default_rng(0), 0.001)
            factor = {
                "end_to_end": 1.0,
                "profile": profiled,
                "warmup": 9.0 if getattr(cell, "warmup", 1) == 0 else warm,
            }[name]
            if name == "end_to_end" and cell.passes == "forward":
                factor = forward
            samples = {
                key: [factor * value for value in values] if key in ("forward_s", "step_s") else values
                for key, values in content["samples"].items()
            }
            details = synthetic_inside.profile(made, cell, np.random.default_rng(0), 0.001) if name == "profile" else {}
            synthetic.write(
                made,
                name,
                cell,
                samples=details.get("samples", {}) | samples,
                scalars=content["scalars"],
                details=details.get("details", {}),
                protocol={**made.definition(cell), "warmup_steps": getattr(cell, "warmup", 3), "threads": 2},
            )
    return made


def told(made: Bench, name: str = "end_to_end") -> list[str]:
    return [str(each) for each in experiments.load(name).find(results(made, name)) if "agree" in each.kind]


def test_what_agrees_is_counted(tmp_path: Path) -> None:
    made = bench(tmp_path)
    # Forward in three kinds of cells, backward in two; a step in warmup and in profile, a forward pass in profile.
    assert told(made) == ["6 quantities measured in two kinds of cells: both agree within 5 % or their intervals."]
    rows = experiments.load("end_to_end").tabulate(results(made, "end_to_end"))["agreements"].rows
    assert [(row["first_where"], row["second_where"]) for row in rows] == [
        ("train step", "forward + backward"),
        ("train step", "forward"),
        ("train step", "forward + backward"),
        ("end_to_end", "warmup"),
        ("end_to_end", "profile"),
        ("end_to_end", "profile"),
    ]
    assert {row["verdict"] for row in rows} == {"agrees"}


def test_a_forward_pass_that_takes_longer_by_itself_is_a_finding(tmp_path: Path) -> None:
    """19.7 ms by itself and 14.1 ms inside of a step stood on one page without a word."""
    made = bench(tmp_path, forward=1.4)
    found = [each for each in experiments.load("end_to_end").find(results(made, "end_to_end")) if "agree" in each.kind]
    alone = next(each for each in found if "the forward pass of nano" in each.sentence)
    assert alone.sentence.startswith("Two measurements of the forward pass of nano, context 128, batch 4 disagree: ")
    assert " ms in train step and " in alone.sentence
    assert alone.sentence.endswith(" ms in forward, 1.40×.")
    assert alone.evidence.caveat.startswith("One process each: no verdict.")
    assert [("passes~forward," in path, "passes~train_step" in path) for path in alone.evidence.records] == [
        (False, True),
        (True, False),
    ]


def test_a_step_that_differs_between_experiments_names_both_records(tmp_path: Path) -> None:
    assert any(
        "in end_to_end and" in each and "in profile, 1.20×" in each for each in told(bench(tmp_path, profiled=1.2))
    )


def test_the_longest_warm_up_counts(tmp_path: Path) -> None:
    (only,) = (each for each in told(bench(tmp_path, warm=0.8)) if "warmup" in each)
    assert "in end_to_end and" in only
    assert "in warmup, 0.80" in only


PLAIN_STEP = {"size": ["nano"], "context": [64], "optimizer": ["adamw_loop"]}
LADDER = {"size": ["nano"], "context": [64], "rung": ["fused_adamw", "foreach_adamw", "sdpa"]}


def ladder(tmp_path: Path, factor: float) -> Bench:
    """A bench on which a step of `end_to_end` takes `factor` times as long as the same step on the ladder.

    The lowest rung is not kept, so that the one above it is measured on the plain step too.
    """
    grids = {
        "end_to_end": [PLAIN_STEP, {"size": ["nano"], "context": [64]}, {"size": ["nano"], "context": [128]}],
        "ladder": [LADDER],
    }
    made = synthetic.bench(tmp_path, **grids)
    synthetic.fill(made, spread=0.001)
    (base, kept) = (
        next(record for record in results(made, "ladder").rows if record["rung"] == rung)["record"].samples[key]
        for rung, key in (("fused_adamw", "base_s"), ("foreach_adamw", "step_s"))
    )
    for cell in made.grid("end_to_end"):
        content = synthetic.decoder_step(made, cell, np.random.default_rng(0), 0.001)
        alike = base if cell.optimizer == "adamw_loop" else kept
        content["samples"]["step_s"] = [factor * seconds for seconds in alike]
        synthetic.write(made, "end_to_end", cell, **content)
    return made


def test_steps_of_the_ladder_are_held_against_those_of_the_same_settings(tmp_path: Path) -> None:
    """The plain step, and that with the faster AdamW; the fused AdamW and context 128 have no counterpart."""
    made = ladder(tmp_path, 1.0)
    rows = experiments.load("end_to_end").tabulate(results(made, "end_to_end"))["agreements"].rows
    assert [(row["quantity"], row["second_where"], row["verdict"]) for row in rows] == [
        ("the step of nano, context 64, batch 4, adamw loop, train step", "ladder", "agrees"),
        ("the step of nano, context 64, batch 4, adamw foreach, train step", "ladder", "agrees"),
    ]
    assert [row["second_over_first_ratio"] for row in rows] == [1.0, 1.0]
    (plain,) = rows[0]["records"]["ladder"]
    assert "rung~fused_adamw" in plain


def test_a_plain_step_that_takes_another_time_on_the_ladder_is_a_finding(tmp_path: Path) -> None:
    made = ladder(tmp_path, 1.2)
    found = told(made)
    assert len(found) == 2
    assert found[0].startswith(
        "Two measurements of the step of nano, context 64, batch 4, adamw loop, train step disagree"
    )
    assert "in end_to_end and" in found[0]
    assert "in ladder, 0.833×" in found[0]
    every = experiments.load("end_to_end").find(results(made, "end_to_end"))
    first = next(each for each in every if each.kind == findings.CONTRADICTION)
    assert findings.told(first).ratio == pytest.approx(1 / 1.2, rel=0.01)  # by which the summary ranks it


def reading(median: float, half: float | None) -> Reading:
    low, high = (None, None) if half is None else (median - half, median + half)
    return Reading("a cell", (), "step_s", median, low, high)


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        (reading(1.0, 0.001), reading(1.04, 0.001), "agrees"),  # within 5 %, whatever the intervals
        (reading(1.0, 0.001), reading(1.2, 0.001), "differs"),
        (reading(1.0, 0.001), reading(0.8, 0.001), "differs"),
        (reading(1.0, 0.15), reading(1.2, 0.15), "agrees"),  # the intervals overlap
        (reading(1.0, None), reading(1.2, 0.01), "no interval"),
        (reading(1.0, 0.01), reading(1.2, None), "no interval"),
    ],
)
def test_a_difference_is_beyond_both_intervals_and_five_percent(first: Reading, second: Reading, verdict: str) -> None:
    assert Agreement("a step", first, second).verdict == verdict


@pytest.mark.parametrize(("factor", "differs"), [(1.0, False), (3.0, True)])
def test_an_all_reduce_in_a_step_is_held_against_the_collectives(tmp_path: Path, factor: float, differs: bool) -> None:
    grids = {
        "data_parallel": [STEP | {"strategy": ["flat"]}],
        "collectives": [
            {"operation": ["all_reduce"], "backend": ["gloo"], "ranks": [2], "payload_bytes": [4096, 2**20, 2**24]}
        ],
    }
    made = synthetic.bench(tmp_path, **grids)
    synthetic_on_ranks.fill(made, spread=0.001)
    (cell,) = made.grid("data_parallel")
    content = synthetic_on_ranks.data_parallel(made, cell, np.random.default_rng(0), 0.001)
    seconds = synthetic_on_ranks.LATENCY_S + content["scalars"]["payload_bytes"] / synthetic_on_ranks.BYTES_PER_S
    content["samples"]["all_reduce_busy_s"] = [[factor * seconds] * 7] * 2
    synthetic.write(made, "data_parallel", cell, **content)
    (sentence,) = told(made, "data_parallel")
    assert ("Two measurements of an all-reduce of 13.8 MiB on 2 ranks disagree" in sentence) == differs
    (row,) = experiments.load("data_parallel").tabulate(results(made, "data_parallel"))["agreements"].rows
    assert row["second_over_first_ratio"] == pytest.approx(1 / factor, rel=0.02)
    assert row["verdict"] == ("differs" if differs else "agrees")
    assert len(row["records"]["collectives, by the fit"]) == 3


def test_make_same_fails_where_something_differs() -> None:
    assert same_against_same.exit_code({"SAME", "UNCLEAR"}, {"agrees", "no interval"}) == 0
    assert same_against_same.exit_code({"SAME", "SLOWER"}, {"agrees"}) == 1
    assert same_against_same.exit_code({"SAME"}, {"agrees", "differs"}) == 1
    assert same_against_same.exit_code({"oom"}, set()) == 1


def test_make_same_shows_halves_implementations_and_phases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert same_against_same.main() == 1  # nothing has been measured
    shown = capsys.readouterr().out
    for title in ("The same against the same", "Compiled against eager", "The same quantity in two kinds of cells"):
        assert f"### {title}" in shown
