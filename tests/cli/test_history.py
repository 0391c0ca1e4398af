"""`stepbench history` and `stepbench prune --history`."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.pipeline.test_bench import PATH, ROOT, SETTINGS, record

from stepbench.cli import main as command_line
from stepbench.pipeline import config, history
from stepbench.pipeline.bench import Bench

FACTS = {"torch": "2.13.0+cpu", "git_commit": "0123456789abcdef", "git_dirty": True, "driver": None}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A cell that was measured with an older torch, twice with another kernel, and as things are now."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    (tmp_path / config.SCHEMA).write_bytes((ROOT / config.SCHEMA).read_bytes())
    monkeypatch.chdir(tmp_path)
    made = Bench.open(Path())
    now = record(made, samples={"step_s": [0.1, 0.11, 0.1, 0.12, 0.1, 0.1]}, environment=FACTS)
    fingerprint: dict[str, Any] = now.fingerprint
    other = {**fingerprint, "source": {**fingerprint["source"], "stepbench.workloads.timed": "0"}}
    older = {**other, "software": {**fingerprint["software"], "torch": "2.12.1"}}
    for day, found in enumerate((older, other, other, fingerprint), start=1):
        changes: dict[str, Any] = {
            "started": f"2026-01-0{day}T10:00:00.000+00:00",
            "samples": {"step_s": [day * seconds for seconds in now.samples["step_s"]]},
            "environment": FACTS | {"git_commit": f"{day}123456789abcdef", "torch": found["software"]["torch"]},
        }
        history.replace(made.root / PATH, dataclasses.replace(now, fingerprint=found, **changes))
    return made


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, list[str], str]:
    code = command_line.main(words)
    captured = capsys.readouterr()
    return code, captured.out.splitlines(), captured.err


def test_each_measurement_has_a_line_with_what_made_it_stale(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "history", PATH)
    lines = [[part.strip() for part in line.strip("│").split("│")] for line in out if line.startswith("│")]
    assert code == 0
    assert [line[0] for line in lines] == [f"2026-01-0{day} 10:00:00" for day in range(1, 5)]
    assert [line[1] for line in lines] == [f"{day}123456789+" for day in range(1, 5)]
    torch = record(bench).fingerprint["software"]["torch"]
    assert [line[-1] for line in lines] == [
        f"software: torch was '2.12.1', is {torch!r}",
        "measured again",
        "source: stepbench.workloads.timed changed",
        "stands",
    ]
    assert [line[2] for line in lines] == ["2.12.1", torch, torch, torch]
    assert [line[3] for line in lines[:2]] == ["100 [100, 116] ms", "200 [200, 233] ms"]


def test_a_record_whose_code_has_changed_since_stands_and_is_stale(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    file = bench.root / "config.yaml"
    file.write_text(yaml.safe_dump(SETTINGS | {"sizes": {**SETTINGS["sizes"], "nano": SETTINGS["sizes"]["micro"]}}))
    _, out, _ = run(capsys, "history", PATH)
    assert "stands, stale: definition: size.layers was 1, is 2" in "\n".join(out)


def test_prune_bounds_the_history_alone(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "prune", "--history", "--keep", "1", "--dry-run")
    assert (code, len(out), err) == (0, 2, "would remove 2 records of the history\n")
    assert len(history.read(bench.root / PATH).entries) == 3
    code, removed, err = run(capsys, "prune", "--history", "--keep", "1")
    assert (code, removed, err) == (0, out, "removed 2 records of the history\n")
    assert [entry.record.started[:10] for entry in history.read(bench.root / PATH).entries] == ["2026-01-03"]
    assert (bench.root / PATH).exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--history"], "`--history` needs a bound: `--keep COUNT`, `--days DAYS` or both"),
        (["--keep", "3"], "`--keep` bounds the history and needs `--history`"),
        (["--history", "--days", "-1"], "`--days` must be 0 or more, got -1"),
    ],
)
def test_a_bound_that_is_none_is_refused(
    bench: Bench, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(capsys, "prune", *words) == (2, [], f"stepbench: {message}\n")
