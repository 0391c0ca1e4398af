"""What `stepbench plan` says of a machine that this one is not: hours and money, and where the estimates come from."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.pipeline.test_bench import write

from stepbench.cli import main as command
from stepbench.experiments.end_to_end.cell import Cell
from stepbench.experiments.fsdp.cell import Cell as Fsdp
from stepbench.measure import software
from stepbench.pipeline import config, durations, planning
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States

ROOT = Path(__file__).parents[2]
NAME = "nvidia-h100-8x"
FILE = ROOT / "tests" / "pipeline" / "machines" / f"{NAME}.json"
PRICE = {"per_device_hour": 3.5, "currency": "USD", "date": "2026-11-21", "source": "a rental's price list"}
BY_FORMULA = (
    "as no similar cell has been measured: predicted FLOPs and bytes over the vendor's peaks of NVIDIA H100 80GB HBM3"
)
Open = Callable[..., Bench]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Return a function that opens a login node's bench for a described machine, with changes to config.yaml."""

    def open_(text: str | None = None, **changes: object) -> Bench:
        (tmp_path / "machines").mkdir(exist_ok=True)
        (tmp_path / "machines" / FILE.name).write_text(FILE.read_text() if text is None else text)
        shutil.copy(ROOT / config.SCHEMA, tmp_path)
        settings = yaml.safe_load((ROOT / "config.yaml").read_text()) | {"machine": NAME, "scale": "gpu"} | changes
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
        return Bench.open(tmp_path)

    return open_


def told(bench: Bench, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert command.main(["--root", str(bench.root), "plan", *words]) == 0
    return capsys.readouterr().err.splitlines()


def test_the_whole_grid_has_hours_and_money_before_anything_is_rented(
    opened: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = opened(prices={NAME: PRICE})
    (line, *_) = told(bench, capsys)
    found = re.fullmatch(
        r"(\d+) of (\d+) cells to measure; about ([\d.]+) h of measurement, estimated roughly, "
        + re.escape(BY_FORMULA)
        + r"; estimated cost ([\d.]+) USD \(([\d.]+) h of 8 devices at 3\.50 USD per device-hour; 2026-11-21, "
        r"a rental's price list\)",
        line,
    )
    assert found is not None, line
    assert int(found[1]) == int(found[2]) == len(bench.cells) > 1900
    hours = sum(durations.of(bench, cell) or 0.0 for cell in bench.cells) / 3600
    assert float(found[3]) == float(found[5]) == round(hours, 1)
    assert float(found[4]) == pytest.approx(8 * 3.5 * hours, abs=0.01)


def test_a_machine_to_be_rented_without_a_price_is_told(opened: Open, capsys: pytest.CaptureFixture[str]) -> None:
    (line, *_) = told(opened(), capsys, "ceilings")
    assert line.endswith(f"; no cost, as config.yaml has no price of {NAME} under `prices`")
    (line, *_) = told(opened(), capsys, "ceilings", "--price-per-hour", "20")
    assert re.search(r"; estimated cost [\d.]+: [\d.]+ h at 20\.00 an hour$", line)


def test_the_quick_grid_tells_what_the_whole_one_costs(opened: Open, capsys: pytest.CaptureFixture[str]) -> None:
    bench = opened(scale="auto", prices={NAME: PRICE})
    assert bench.scale == "gpu_quick"
    _, whole, *_ = told(bench, capsys)
    assert re.fullmatch(
        r"the whole grid, `scale: gpu`, has \d{4} cells and takes roughly [\d.]+ h; estimated cost [\d.]+ USD "
        r"\([\d.]+ h of 8 devices at 3\.50 USD per device-hour; 2026-11-21, a rental's price list\)",
        whole,
    )


def test_earlier_cells_are_told_apart_from_the_formula(opened: Open, capsys: pytest.CaptureFixture[str]) -> None:
    grid = {"end_to_end": {"gpu": [{"size": ["small", "xl"], "context": [128, 256], "replicate": [0, 1]}]}}
    bench = opened(experiments=grid)
    write(bench, Cell("small", 128), "end_to_end", duration_s=30.0)
    (line, *_) = told(bench, capsys)
    assert line.startswith("7 of 8 cells to measure; about ")
    assert f"estimated 4 of them roughly, {BY_FORMULA};" in line
    for context in (128, 256):
        write(bench, Cell("xl", context), "end_to_end", duration_s=90.0)
    (line, *_) = told(bench, capsys)
    assert line.startswith("5 of 8 cells to measure; about 4 min of measurement, estimated from earlier cells;")


def test_a_device_that_no_table_knows_is_told(opened: Open, capsys: pytest.CaptureFixture[str]) -> None:
    (line, *_) = told(opened(FILE.read_text().replace("NVIDIA H100 80GB HBM3", "NVIDIA of 2031")), capsys, "ceilings")
    assert "bytes over the peaks of a small GPU, because those of NVIDIA of 2031 are not known;" in line


def test_a_cell_on_two_nodes_holds_two(opened: Open) -> None:
    grid = {"fsdp": {"gpu": [{"source": ["measured"], "size": ["small"], "context": [256], "variant": ["fsdp"]}]}}
    grid["fsdp"]["gpu"][0] |= {"ranks": [16], "nodes": [1, 2]}
    bench = opened(experiments=grid)
    one, two = bench.grid("fsdp")
    assert (one.nodes, two.nodes) == (1, 2)
    assert durations.of(bench, one) == durations.START_S  # eight GPUs are too few for 16 ranks
    plan = planning.plan(States(bench))
    found = planning.estimate(plan.waiting, {})
    assert found.held_s == pytest.approx(found.seconds + (durations.of(bench, two) or 0.0))
    write(bench, two, "fsdp", duration_s=100.0)
    earlier = planning.estimate(plan.waiting, planning.plan(States(bench)).durations_s)
    assert earlier.seconds == 200.0
    assert earlier.held_s == 3 * (100.0 + durations.START_S)
    assert isinstance(two, Fsdp)


def test_a_login_node_without_a_compiler_says_nothing_of_it(
    opened: Open, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(software, "lacks_compiler", lambda: "a C compiler missing: install gcc")
    assert "compiler" not in "\n".join(told(opened(), capsys, "ceilings"))
