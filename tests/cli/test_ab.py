"""What `stepbench ab` does with what its sides measure; tests/workflow/test_ab.py has real sides."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from tests.pipeline.test_bench import ROOT, SETTINGS, record

from stepbench.cli import ab as command
from stepbench.cli import main as command_line
from stepbench.comparison import ab
from stepbench.pipeline import config
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.records import Record
from stepbench.process.side import Side, SideError
from stepbench.reporting.statistics import Verdict

Seconds = Callable[[str, str], float]  # of a side and a cell
CELL = "size=nano,warmup=1"
BOTH = (CELL, "size=micro,warmup=1")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs the command with sides whose processes take the given seconds."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    (tmp_path / config.SCHEMA).write_bytes((ROOT / config.SCHEMA).read_bytes())
    monkeypatch.chdir(tmp_path)
    fingerprint = record(Bench.open(Path())).fingerprint

    def run_(
        seconds: Seconds, *words: str, cells: tuple[str, ...] = (CELL,), b: dict[str, Any] | None = None
    ) -> tuple[int, str, list[str]]:
        class Fake(Side):
            def measure(self, experiment: str, cell: str) -> Record:
                changes = (b or {}) if self.name == "b" else {}
                found = {part: {**values, **changes.get(part, {})} for part, values in fingerprint.items()}
                return record(Bench.open(Path()), samples={"step_s": [seconds(self.name, cell)] * 3}, fingerprint=found)

        @contextlib.contextmanager
        def side(name: str, **asked: Any) -> Iterator[Side]:
            yield Fake(name, asked["python"], Path(), Path(), settings=asked["told"])

        monkeypatch.setattr(command, "side", side)
        code = command_line.main(["ab", "warmup", *cells, "--out", "kept.json", *words])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.splitlines()

    return run_


def drawn(spread: float, **factors: float) -> Seconds:
    """Return times that scatter between processes; a side or a cell may take longer."""
    rng = np.random.default_rng(0)
    return lambda side, cell: float(rng.lognormal(0, spread)) * factors.get(side, 1.0) * factors.get(cell[5:9], 1.0)


def test_a_cell_that_is_decided_is_measured_no_more(run: Any) -> None:
    rng = np.random.default_rng(1)

    def seconds(side: str, cell: str) -> float:
        wild = "micro" in cell
        return float(rng.lognormal(0, 0.15 if wild else 0.002)) * (2.0 if side == "b" and wild else 1.0)

    code, out, _ = run(seconds, "--minutes", "5", cells=BOTH)
    quiet, wild = ab.read(Path("kept.json"))
    assert code == 0
    assert (quiet.comparison.verdict, quiet.comparison.processes, quiet.looks) == (Verdict.SAME, (5, 5), 1)
    assert wild.comparison.verdict is Verdict.SLOWER
    assert "all looks together call two equal sides different in at most 2 % of trials" in out
    assert out.splitlines()[-1] == "kept.json"


def test_a_budget_that_is_spent_ends_it_after_five_a_side(run: Any) -> None:
    code, out, told = run(drawn(0.3), "--minutes", "0.00001")
    (found,) = ab.read(Path("kept.json"))
    assert (code, found.comparison.verdict, found.comparison.processes) == (0, Verdict.UNCLEAR, (5, 5))
    assert len(told) == 5
    assert told[-1].startswith("[5 a side] size=nano,warmup=1: a ")
    assert told[-1].endswith(": UNCLEAR")
    assert "the interval is too wide" in out


def test_what_differs_is_printed(run: Any) -> None:
    code, out, _ = run(drawn(0.001, b=1.2), b={"software": {"torch": "2.99.0"}})
    assert code == 0
    assert "SLOWER" in out
    assert "is '2.99.0'" in out


@pytest.mark.parametrize(
    ("changes", "words", "untold"),
    [
        ({"definition": {"protocol": {"seed": 1}}}, (), "definition: protocol.measured_steps was 2, is None"),
        ({"definition": {"vocabulary": 301}}, ("--allow", "vocabulary"), None),
        ({"definition": {"vocabulary": 301}}, ("--b-config", "vocabulary=301"), None),
        ({"definition": {"vocabulary": 301}}, ("--allow", "vocabular"), "definition: vocabulary was 300, is 301"),
        ({"definition": {"size": {"layers": 9}}}, ("--allow", "sizes"), None),
        ({"definition": {"size": {"d_ff": 9}}}, ("--allow", "sizes.nano.layers"), "definition: size.d_ff was 64, is 9"),
        ({"machine": {"threads": 1}}, ("--a-config", "protocol.threads=2"), None),
        ({"machine": {"threads": 1}}, (), "machine: threads was 2, is 1"),
    ],
)
def test_a_difference_of_definition_or_machine_is_refused_unless_it_is_named(
    run: Any, changes: dict[str, Any], words: tuple[str, ...], untold: str | None
) -> None:
    code, _, told = run(drawn(0.001), *words, b=changes)
    if untold is None:
        assert code == 0
    else:
        assert code == 2
        assert untold in told[-1]
        assert "`--allow KEY` names what is meant" in told[-1]
        assert not Path("kept.json").exists()


def test_a_side_that_fails_later_keeps_what_there_is(run: Any) -> None:
    count = iter(range(100))

    def seconds(side: str, cell: str) -> float:
        if next(count) == 7:
            raise SideError("side a: timeout: no result within 60 s")
        return 1.0

    code, _, told = run(seconds)
    (found,) = ab.read(Path("kept.json"))
    assert (code, told[-1]) == (
        1,
        "stepbench: side a: timeout: no result within 60 s; what was measured is in kept.json",
    )
    assert found.comparison.processes == (3, 4)  # a b, b a, a b, b and no more


def test_a_trial_that_is_stopped_keeps_what_there_is(run: Any) -> None:
    count = iter(range(100))

    def seconds(side: str, cell: str) -> float:
        if next(count) == 4:
            sys.exit(130)  # as on Ctrl-C
        return 1.0

    with pytest.raises(SystemExit):
        run(seconds)
    (found,) = ab.read(Path("kept.json"))
    assert found.comparison.processes == (2, 2)


def test_code_that_is_edited_meanwhile_ends_it(run: Any) -> None:
    changes: dict[str, Any] = {}

    def seconds(side: str, cell: str) -> float:
        changes["source"] = {"stepbench.workloads.timed": str(len(changes))}
        return 1.0

    code, _, told = run(seconds, b=changes)
    assert code == 1
    assert (
        "side b has changed while it was measured (source: stepbench.workloads.timed changed); start again" in told[-1]
    )


def test_a_cell_without_times_cannot_be_compared(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ab.main_time, "median", lambda _: None)
    code, _, told = run(drawn(0.1))
    assert (code, told) == (
        1,
        ["stepbench: side a: warmup size=nano,warmup=1 times nothing that could be compared"],
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--minutes", "0"), "`--minutes` must be above 0, got 0"),
        (("--a-config", "vocabulary"), "a setting must be KEY=VALUE with a value in YAML, got 'vocabulary'"),
    ],
)
def test_what_cannot_be_understood_is_refused(run: Any, words: tuple[str, ...], message: str) -> None:
    assert run(drawn(0.1), *words)[::2] == (2, [f"stepbench: {message}"])


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 2, "cells": []}', '{"version": 1, "cells": [{}]}'])
def test_a_file_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="not a file of `stepbench ab`"):
        ab.read(tmp_path / "x.json")
