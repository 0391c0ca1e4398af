"""The ladder's table, figure and sentences, made from records that nobody measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.reporting import synthetic, synthetic_inside

from stepbench.experiments import experiment as experiments
from stepbench.experiments.ladder.climb import ladders
from stepbench.pipeline.state import States
from stepbench.reporting import frames
from stepbench.reporting.frames import Results

EXPERIMENT = experiments.load("ladder")
RUNGS = ["tf32", "sdpa", "foreach_adamw", "fused_adamw", "chunked_head", "compiled"]
GRID: list[dict[str, Any]] = [{"size": ["nano"], "context": [64], "rung": RUNGS, "replicate": [0, 1, 2, 3, 4]}]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Results:
    root: Path = tmp_path_factory.mktemp("ladder")
    others = {
        "profile": [{"size": ["nano"], "context": [64]}],
        "ceilings": [{"operation": ["matmul"]}, {"operation": ["copy"]}],
    }
    bench = synthetic.bench(root, ladder=GRID, **others)
    synthetic.fill(bench, "ceilings", "ladder")
    synthetic_inside.fill(bench, "profile")
    return frames.load(States(bench), EXPERIMENT)


def test_the_table_climbs_from_the_plain_step(full: Results) -> None:
    rows = EXPERIMENT.tabulate(full)["ladder"].rows
    assert [row["rung"] for row in rows] == ["plain", *RUNGS]
    assert [row["stays"] for row in rows] == [None, None, "yes", "yes", "no", "yes", "yes"]
    assert [row["verdict"] for row in rows] == [None, None, "FASTER", "FASTER", "SLOWER", "FASTER", "FASTER"]
    assert rows[1]["status"] == "unsupported"
    plain, best = rows[0], rows[-1]
    assert best["step_median_s"] / plain["step_median_s"] == pytest.approx(0.8 * 0.9 * 0.95 * 0.6, rel=0.02)
    assert best["tokens_per_s"] == pytest.approx(4 * 64 / best["step_median_s"])
    assert best["bought_ratio"] == pytest.approx(1 / 0.6, rel=0.02)
    assert best["distance_ratio"] > 1
    assert 0 < plain["mfu_ratio"] < best["mfu_ratio"] < 1
    assert best["settings"] == ("attention sdpa, optimizer adamw foreach, head chunked, implementation compiled")


def test_the_least_time_is_of_the_rungs_own_optimizer_and_dtype(full: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    (ladder,) = ladders(full.groups())
    best, peaks = ladder.best, full.peaks
    assert best is not None
    assert peaks.copy is not None
    products = best.group.scalar("least_flops") / peaks.flops_per_s("fp32")  # type: ignore[operator]
    a_byte_each = best.group.scalar("parameters") / peaks.copy.per_s
    for more, moved in (({}, 28), ({"optimizer": "sgd"}, 12), ({"parameter_dtype": "bf16"}, 14)):
        settings = {**best.details("step"), **more}
        monkeypatch.setattr(type(best), "details", lambda _self, _which, found=settings: found)
        assert best.least_s(peaks) == pytest.approx(products + moved * a_byte_each)
        monkeypatch.undo()


def test_the_fastest_step_is_named_with_what_was_left_out_and_the_distance(full: Results) -> None:
    fastest, left_out, distance = EXPERIMENT.find(full)
    assert fastest.text.startswith(
        "The fastest step (nano) has attention sdpa, optimizer adamw foreach, head chunked and implementation compiled:"
    )
    assert fastest.verdict == "FASTER"
    assert left_out.text.startswith(
        "Left out of what follows, because a token is not faster with it (nano): fused adamw (0.909×)."
    )
    assert "that its products take at the measured peak" in distance.text
    assert (
        "Of the operators' time in a profiled eager step (context 64, batch 4, fp32) most goes to mm 6" in distance.text
    )


def test_what_an_eager_step_is_made_of_stands_in_a_table(full: Results) -> None:
    rows = EXPERIMENT.tabulate(full)["operators"].rows
    shares = [row["share_ratio"] for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert sum(shares) <= 1 + 1e-9
    assert rows[0]["operator"] == "mm"
    assert all("profile/size~nano" in path for row in rows for path in row["records"]["profile"])


def test_every_rung_is_drawn(full: Results) -> None:
    figure: Any = EXPERIMENT.plot(full)["ladder"]
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["plain", "tf32", "sdpa", "foreach adamw", "fused adamw", "chunked head", "compiled"]
    assert len(figure.told) == 6


def test_a_ladder_without_numbers_says_so(tmp_path: Path) -> None:
    bench = synthetic.bench(tmp_path, ladder=GRID)
    empty = frames.load(States(bench), EXPERIMENT)
    assert EXPERIMENT.find(empty) == []
    assert EXPERIMENT.plot(empty)["ladder"].sentence  # type: ignore[attr-defined]
    assert [row["stays"] for row in EXPERIMENT.tabulate(empty)["ladder"].rows] == [None] * len(RUNGS)


def test_its_best_rung_is_what_the_reports_summary_takes(full: Results) -> None:
    assert EXPERIMENT.summarize is not None
    speeds = EXPERIMENT.summarize(full).speeds
    best = [each.best for each in ladders(full.groups())]
    assert [each.tokens_per_s for each in speeds] == [each.tokens_per_s() for each in best if each]
    assert speeds
    assert all(each.over_plain is not None and each.over_plain.ratio > 1 for each in speeds)
    assert all(each.way for each in speeds)
