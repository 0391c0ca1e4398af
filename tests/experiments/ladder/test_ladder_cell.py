"""Which rungs a rung builds on, and what their records decide."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from tests.reporting import synthetic

from stepbench.experiments.ladder.cell import Cell, Rung, rung_mistakes, settings_of, steps_of
from stepbench.pipeline import staleness
from stepbench.pipeline.config import ConfigError
from stepbench.pipeline.state import States

RUNGS = {"a": {"attention": "sdpa"}, "b": {"optimizer": "adamw_fused"}, "c": {"batch": 16, "groups": "1"}}
GRID = [Cell("nano", 64, rung, replicate=replicate) for replicate in (0, 1, 2) for rung in RUNGS]


def record(step: float, base: float = 1.0, tokens: int = 100, base_tokens: int = 100) -> Any:
    return SimpleNamespace(
        samples={"step_s": [step, 99.0, step], "base_s": [base] * 3},
        scalars={"tokens_per_step": tokens, "base_tokens_per_step": base_tokens},
    )


def kept(**steps: list[Any]) -> list[str]:
    """Return what is kept below a rung of these records."""
    below = {
        Cell("nano", 64, name, replicate=index): each
        for name, found in steps.items()
        for index, each in enumerate(found)
    }
    return list(Cell("nano", 64, "z").learned({"rungs": RUNGS}, below)["kept"])


def test_a_rung_builds_on_all_processes_of_those_before_it_at_its_point() -> None:
    other = [Cell("micro", 64, "a"), Cell("nano", 128, "a"), Cell("nano", 64, "a", batch=1)]
    below = Cell("nano", 64, "c", replicate=1).builds_on([*GRID, *other])
    assert [(each.rung, each.replicate) for each in below] == [(rung, n) for rung in "ab" for n in (0, 1, 2)]
    assert Cell("nano", 64, "a").builds_on(GRID) == ()
    assert len(Cell("nano", 64, "asked_by_name").builds_on(GRID)) == len(GRID)


def test_what_is_faster_in_the_middle_process_is_kept() -> None:
    assert kept(a=[record(0.9)] * 3, b=[record(1.1)] * 3) == ["a"]
    assert kept(a=[record(0.9), record(1.1), record(1.2)], b=[record(0.9), record(0.8), record(1.2)]) == ["b"]
    assert kept(a=[record(1.0)]) == []
    assert kept(a=[None, None, None]) == []
    assert kept(a=[None, record(0.9), None]) == ["a"]


def test_a_larger_batch_is_judged_by_the_token() -> None:
    assert kept(c=[record(3.0, tokens=400)]) == ["c"]
    assert kept(c=[record(4.1, tokens=400)]) == []


def test_the_step_has_what_was_kept_and_its_own_settings() -> None:
    base, step = steps_of({"kept": {"a": RUNGS["a"], "c": RUNGS["c"]}, "rung": {"groups": "2", "precision": "bf16"}})
    assert base == Rung(attention="sdpa", batch=16, groups="1")
    assert step == Rung(attention="sdpa", batch=16, groups="2", precision="bf16")
    assert "batch" not in settings_of(Rung())
    assert settings_of(step)["batch"] == 16
    modules = Cell("nano", 64, "b").modules({"kept": {}, "rung": {"attention": "sdpa", "head": "chunked"}})
    assert {name.rpartition(".")[2] for name in modules} == {"naive", "sdpa", "whole", "chunked"}


def test_a_wrong_rung_is_told_with_what_is_valid(tmp_path: Any) -> None:
    assert rung_mistakes({"attention": "sdpa", "batch": 8}) == {}
    assert rung_mistakes({"atention": "sdpa"})["atention"].startswith("is no setting of a rung; valid are precision, ")
    assert rung_mistakes({"attention": "mine"}, ["mine"]) == {}
    told = rung_mistakes({"attention": "sdpaa"}, ["mine"])["attention"]
    assert told.startswith("must be one of naive, ")
    assert told.endswith(", mine, got 'sdpaa'")
    assert rung_mistakes({"head": "fused"})["head"].startswith(
        "must be one of whole, chunked, triton, torch, got 'fused'"
    )
    settings = synthetic.settings(ladder=[{"size": ["nano"], "context": [64], "rung": ["sdpa", "chunky"]}])
    settings["rungs"]["bad"] = {"batch": 0}
    with pytest.raises(ConfigError) as refused:
        synthetic.Bench(settings, root=tmp_path, schema=synthetic.ROOT / "config.schema.yaml")
    told = str(refused.value)
    assert "`rungs.bad.batch` must be a whole number from 1" in told
    assert "names the rung 'chunky', which does not exist" in told


def test_a_rung_is_measured_again_after_one_that_it_builds_on(tmp_path: Any) -> None:
    bench = synthetic.bench(tmp_path, ladder=[{"size": ["nano"], "context": [64], "rung": ["sdpa", "compiled"]}])
    low, high = bench.grid("ladder")
    wildcards = {axis: str(value) for axis, value in high.values.items()}

    def needed() -> list[str]:
        return staleness.needs(States(bench), "ladder")(wildcards)

    assert str(bench.path(low)) in needed()  # nothing is measured yet
    synthetic.fill(bench)
    assert needed() == []
    assert States(bench).of(high).kind == "fresh"
    synthetic.write(
        bench,
        "ladder",
        low,
        **synthetic.ladder(bench, low, synthetic.np.random.default_rng(0), 0.01) | {"status": "error", "reason": "x"},
    )
    assert States(bench).of(high).kind == "stale"  # what it was built on is not kept any more
    assert any("sdpa" in str(each) for each in States(bench).of(high).reasons)
    (bench.root / bench.path(low)).unlink()
    assert str(bench.path(low)) in needed()
