"""What a run would do, and what no grid asks for any more."""

from pathlib import Path

import pytest
import yaml
from tests.pipeline.test_bench import CELL, PATH, ROOT, SETTINGS, write

from stepbench.cli import main as command
from stepbench.experiments.numerics.cell import Cell as Numerics
from stepbench.experiments.warmup.cell import Cell as Warmup
from stepbench.pipeline import config, planning
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    (tmp_path / config.SCHEMA).write_text((ROOT / config.SCHEMA).read_text())
    return Bench.open(tmp_path)


def told(bench: Bench, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    assert command.main(["--root", str(bench.root), *words]) == 0
    found = capsys.readouterr()
    return found.out, found.err


def test_a_plan_holds_what_is_not_fresh_with_its_reason(bench: Bench) -> None:
    write(bench, CELL, duration_s=10.0)
    write(bench, Warmup("nano", 0), duration_s=20.0, status="error", reason="why")
    found = planning.plan(States(bench))
    assert found.total == 5
    assert {Path(each.path).name: each.state for each in found.waiting} == {
        "size~nano,warmup~0,replicate~0.json": "failed",
        "size~nano,warmup~0,replicate~1.json": "missing",
        "size~nano,warmup~1,replicate~1.json": "missing",
        "case~accumulation.json": "missing",
    }
    assert next(each.reasons for each in found.waiting if each.state == "failed") == ("error: why",)
    assert planning.estimate(found.waiting, found.durations_s) == planning.Estimate(
        45.0, by_formula=0, unknown=1, held_s=60.0
    )


def test_the_command_tells_time_and_price(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    write(bench, CELL, duration_s=3600.0)
    out, err = told(bench, capsys, "plan", "--price-per-hour", "2.5")
    assert len(out.splitlines()) == 4
    assert err == (
        "4 of 5 cells to measure; about 3.0 h of measurement, estimated from earlier cells; "
        "no estimate for 1, as no similar cell has been measured; estimated cost 7.51: 3.0 h at 2.50 an hour\n"
    )


def test_nothing_to_do_is_said(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    write(bench, Numerics("accumulation"), "numerics")
    assert told(bench, capsys, "plan", "numerics") == ("", "0 of 1 cells to measure\n")


def test_a_size_that_no_grid_uses_is_told(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    size = "{d_model: 64, d_ff: 128, layers: 1, heads: 2}"
    _, err = told(bench, capsys, "plan", "numerics", "--config", f"sizes={{mine: {size}, other: {size}}}")
    assert err.splitlines()[1:] == ["no grid uses mine, other of `sizes`: add it to a grid of `experiments`"]
    _, err = told(bench, capsys, "plan", "numerics")
    assert "no grid uses" not in err


def test_commands_take_files_and_settings_as_snakemake_does(
    bench: Bench, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Merged in order: config.yaml, the files, the settings; mappings key by key, lists as they are."""
    write(bench, CELL)
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text("vocabulary: 400\nprotocol: {seed: 1}\n")
    other.write_text("protocol: {seed: 2}\nexperiments: {warmup: {cpu: [{size: [nano], warmup: [3]}]}}\n")
    merged = ["--configfile", str(one), "--configfile", str(other), "--config", "protocol={seed: 7}"]
    out, _ = told(bench, capsys, "why", PATH, *merged)
    assert "definition: protocol.seed was 0, is 7; vocabulary was 300, is 400" in " ".join(out.split()).replace(
        " definition: vocabulary", "; vocabulary"
    )
    out, _ = told(bench, capsys, "cells", "warmup", *merged)
    assert [Path(line.split()[0]).stem for line in out.splitlines()] == ["size~nano,warmup~3,replicate~0"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--config", "seed"], "`--config` must be KEY=VALUE with a value in YAML, got 'seed'"),
        (["--config", "seed={"], "`--config` must be KEY=VALUE with a value in YAML, got 'seed={'"),
        (["--config", "vocabulary=1"], "`vocabulary` must be a whole number from 2 to"),
        (["--configfile", "absent.yaml"], "absent.yaml: a configuration file must be readable"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(
    bench: Bench, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    assert command.main(["--root", str(bench.root), "plan", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line


def test_why_names_what_changed(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    write(bench, CELL)
    assert told(bench, capsys, "why", PATH)[0].split()[:2] == [PATH, "fresh"]
    settings = yaml.safe_load((bench.root / "config.yaml").read_text())
    settings["vocabulary"] = 400
    (bench.root / "config.yaml").write_text(yaml.safe_dump(settings))
    out, _ = told(bench, capsys, "why", PATH)
    assert "stale" in out
    assert "definition: vocabulary was 300, is 400" in out


def test_why_refuses_what_is_no_cell(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--root", str(bench.root), "why", "results/here/warmup/size~nano.json"]) == 2
    assert "a cell must name the axes size, warmup, replicate in this order" in capsys.readouterr().err


def test_what_no_grid_asks_for_is_listed_and_only_then_removed(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, gone = Warmup("nano", 1), Warmup("nano", 7)
    write(bench, kept)
    write(bench, gone)
    path = str(bench.path(gone))
    for cell in (kept, gone):
        for suffix in (".trace.json.gz", ".snapshot.pickle"):
            (bench.root / f"{str(bench.path(cell)).removesuffix('.json')}{suffix}").touch()
    out, err = told(bench, capsys, "prune", "--dry-run")
    assert (out.strip(), err) == (path, "would remove 1 records that are in no configured grid\n")
    assert (bench.root / path).exists()
    assert "not in the configured grid" in told(bench, capsys, "why", path)[0]
    assert told(bench, capsys, "prune")[1] == "removed 1 records that are in no configured grid\n"
    left = sorted(file.name for file in (bench.root / path).parent.iterdir())
    stem = bench.path(kept).name.removesuffix(".json")
    assert left == [f"{stem}{suffix}" for suffix in (".json", ".snapshot.pickle", ".trace.json.gz")]
