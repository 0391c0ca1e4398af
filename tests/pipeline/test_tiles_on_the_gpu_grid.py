"""Which cells of the whole GPU grid become stale where tile shapes are searched or shipped: those that launch them."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.pipeline.test_durations import MACHINES

from stepbench.measure import devices
from stepbench.measure.devices import Found
from stepbench.pipeline import config, reach
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.cells import Cell
from stepbench.pipeline.state import States

ROOT = Path(__file__).parents[2]
TILES, FIGURES = Path("kernels", "triton", "tiles.json"), Path("kernels", "triton", "figures.json")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package, whose source the fingerprints are of."""
    copied = tmp_path / "stepbench"
    shutil.copytree(reach.ROOT, copied, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(reach, "ROOT", copied)
    return copied


@pytest.fixture
def stale(tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Cell]]:
    """Return which cells of the grid of an H100 have another fingerprint after a data file was edited."""
    device, count = MACHINES["H100"]
    monkeypatch.setattr(devices, "found", lambda: Found("cuda", "cuda", (device,) * count))
    settings = {**config.read(ROOT / "config.yaml"), "scale": "gpu"}
    settings["data"] = {**settings["data"], "source": "synthetic"}
    bench = Bench(settings, root=tmp_path, schema=ROOT / config.SCHEMA)
    cells = bench.cells
    assert len(cells) > 1900
    before = States(bench)
    fingerprints = [before.fingerprint(cell)["source"] for cell in cells]

    def changed(file: Path, edit: Callable[[Any], None]) -> list[Cell]:
        content = json.loads((package / file).read_text(encoding="utf-8"))
        was = copy.deepcopy(content)
        edit(content)
        assert content != was
        (package / file).write_text(json.dumps(content), encoding="utf-8")
        after = States(bench)
        return [
            cell for cell, found in zip(cells, fingerprints, strict=True) if after.fingerprint(cell)["source"] != found
        ]

    return changed


def other_tiles(architecture: str) -> Callable[[Any], None]:
    def edit(tables: Any) -> None:
        tables[architecture]["machine"] = "one that was tuned"
        for row in tables[architecture]["rows"]:
            row["forward"] = [64, 32, 4, 2]

    return edit


def launches_tiles(cell: Any) -> bool:
    """Tell whether a cell launches an attention kernel of ours: by an axis, or by a rung that it climbs."""
    names = [getattr(cell, axis, "") for axis in ("implementation", "attention", "rung")]
    return any(name.startswith("triton") and name != "triton_head" for name in names)


@pytest.mark.parametrize("architecture", ["sm_75", "sm_80", "sm_89", "sm_100", "sm_120"])
def test_another_architectures_tiles_make_no_cell_stale(stale: Callable[..., list[Cell]], architecture: str) -> None:
    assert stale(TILES, other_tiles(architecture)) == []


def test_ones_own_tiles_make_the_cells_stale_that_launch_them(stale: Callable[..., list[Cell]]) -> None:
    found = stale(TILES, other_tiles("sm_90"))
    assert 0 < len(found) < 400
    assert [cell.name for cell in found if not launches_tiles(cell)] == []


def test_the_command_that_tune_advises_makes_no_cell_stale(stale: Callable[..., list[Cell]]) -> None:
    """`stepbench kernels --compile` writes what the new tiles compile to."""

    def edit(figures: Any) -> None:
        figures["date"] = "2031-01-01"
        figures["rows"][0]["registers"] += 1

    assert stale(FIGURES, edit) == []
