"""What of stepbench a number depends on, on a package of the test's own and on the real one."""

import os
import re
from pathlib import Path
from typing import NoReturn

import pytest

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import reach

EXPERIMENT = '''
"""A question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stepbench.experiments.speed.cell import Cell
from stepbench.kernels import fast
from stepbench.shared import MEASURE_ONLY, Setting

if TYPE_CHECKING:
    from stepbench.reporting.tables import Table

WIDTH = 4


def measure(cell: Cell, setting: Setting) -> object:
    """Measure it."""
    # The work.
    return _work(cell.size) + fast.run(WIDTH) + MEASURE_ONLY


def _work(size: str) -> int:
    import stepbench.models.decoder as decoder

    return decoder.build(size)
'''

CELL = '''
"""The axes."""

from __future__ import annotations

from dataclasses import dataclass

from stepbench.kernels import names
from stepbench.pipeline import cells

TITLE = "Speed"
READS = ("ceilings",)
ROWS = 64


@dataclass(frozen=True)
class Cell(cells.Cell):
    """A cell."""

    size: str
    replicate: int = 0
'''

FILES = {
    "__init__.py": "",
    "shared.py": "MEASURE_ONLY = 1\nclass Setting: pass\n",
    "kernels/__init__.py": "",
    "kernels/names.py": "NAMES = {'fast': 'stepbench.kernels.fast', 'unused': 'stepbench.kernels.unused'}\n",
    "kernels/fast.py": "from stepbench.kernels.tiles import TILE\ndef run(n: int) -> int:\n    return n + TILE\n",
    "kernels/tiles.py": "import json\nTILE = 16\nTABLE = 'tiles.json'\n",
    "kernels/tiles.json": "{}",
    "kernels/figures.json": "{}",
    "kernels/unused.py": "TILE = 16\n",
    "models/__init__.py": "",
    "models/decoder.py": "import stepbench.models.layers\ndef build(size):\n    return 1\n",
    "models/layers.py": "LAYERS = 1\n",
    "pipeline/__init__.py": "",
    "pipeline/cells.py": "class Cell: pass\n",
    "reporting/__init__.py": "",
    "reporting/tables.py": "FIGURES = 'kernels/figures.json'\ndef make(results, colour): ...\n",
    "experiments/__init__.py": "",
    "experiments/speed/__init__.py": "",
    "experiments/speed/cell.py": CELL,
    "experiments/speed/measure.py": EXPERIMENT,
    "experiments/speed/tables.py": "from stepbench.reporting import tables\n",
}
MODULE = "stepbench.experiments.speed.measure"
CELL_MODULE = "stepbench.experiments.speed.cell"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of its own in stepbench's place."""
    for name, text in FILES.items():
        path = tmp_path / "stepbench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(reach, "ROOT", tmp_path / "stepbench")
    return tmp_path / "stepbench"


def source() -> dict[str, str]:
    return reach.source(MODULE, memo=reach.ROOT.parent / "memo")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def changed(before: dict[str, str]) -> list[str]:
    after = source()
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


# -- which modules count -----------------------------------------------------------------------------------------------


def test_what_measure_reaches_counts_and_nothing_else(package: Path) -> None:
    assert sorted(source()) == [
        "stepbench",
        "stepbench.experiments",
        "stepbench.experiments.speed",
        "stepbench.experiments.speed.cell",
        "stepbench.experiments.speed.measure",
        "stepbench.kernels",
        "stepbench.kernels.fast",
        "stepbench.kernels.tiles",
        "stepbench.models",
        "stepbench.models.decoder",
        "stepbench.models.layers",
        "stepbench.shared",
        "stepbench/kernels/tiles.json",
    ]


def test_a_package_counts_wherever_it_lies(package: Path) -> None:
    elsewhere = package.parent / "elsewhere"
    (package / "kernels").rename(elsewhere)
    (package / "kernels").symlink_to(elsewhere)
    found = source()
    assert "stepbench.kernels.tiles" in found
    edit(elsewhere / "tiles.py", "16", "32")
    assert changed(found) == ["stepbench.kernels.tiles"]


def test_a_folder_that_cannot_be_listed_is_not_taken_for_an_empty_one(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "ROOT", package / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        source()


@pytest.mark.parametrize(
    ("file", "old", "new", "module"),
    [
        ("kernels/fast.py", "n + TILE", "n - TILE", "stepbench.kernels.fast"),
        ("kernels/tiles.py", "16", "32", "stepbench.kernels.tiles"),
        ("models/layers.py", "1", "2", "stepbench.models.layers"),
        ("shared.py", "1", "2", "stepbench.shared"),
        ("experiments/speed/measure.py", "WIDTH = 4", "WIDTH = 8", MODULE),
        ("experiments/speed/cell.py", "replicate: int = 0", "replicate: int = 1", CELL_MODULE),
        ("experiments/speed/cell.py", "size: str\n", "size: int\n", CELL_MODULE),
        ("experiments/speed/measure.py", "_work(cell.size) + fast", "_work(cell.size) * fast", MODULE),
        ("experiments/speed/measure.py", "decoder.build(size)", "decoder.build(size + '')", MODULE),
        ("experiments/speed/cell.py", "@dataclass(frozen=True)", "@dataclass", CELL_MODULE),
        ("experiments/speed/cell.py", "ROWS = 64", "ROWS = 65", CELL_MODULE),
    ],
)
def test_code_that_runs_counts(package: Path, file: str, old: str, new: str, module: str) -> None:
    before = source()
    edit(package / file, old, new)
    assert changed(before) == [module]
    edit(package / file, new, old)
    assert changed(before) == []


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("experiments/speed/measure.py", '"""A question."""', '"""Another question,\n\nat length."""'),
        ("experiments/speed/measure.py", '    """Measure it."""\n', ""),
        ("experiments/speed/cell.py", '    """A cell."""', '    """A cell of a grid."""'),
        ("experiments/speed/measure.py", "# The work.", "# The real work."),
        ("experiments/speed/measure.py", "    # The work.\n", ""),
        ("experiments/speed/measure.py", "cell: Cell, setting: Setting) -> object", "cell, setting)"),
        ("experiments/speed/measure.py", "def _work(size: str) -> int:", "def _work(size: 'str') -> float:"),
        ("experiments/speed/tables.py", "import tables", "import tables as shown"),
        ("experiments/speed/cell.py", '"Speed"', '"How fast"'),
        ("experiments/speed/cell.py", '("ceilings",)', "()"),
        ("pipeline/cells.py", "pass", "axes = ()"),
        ("kernels/names.py", "NAMES", "REGISTRY"),
        ("experiments/speed/measure.py", "+ fast.run(WIDTH) +", "+ fast.run(\n        WIDTH,\n    ) +"),
        ("kernels/unused.py", "16", "32"),
        ("reporting/tables.py", "...", "return 1"),
        ("models/decoder.py", "def build(size):", "# the stack of blocks\n\n\ndef build(size):"),
    ],
)
def test_what_changes_no_number_does_not_count(package: Path, file: str, old: str, new: str) -> None:
    before = source()
    edit(package / file, old, new)
    assert changed(before) == []


def test_file_times_mean_nothing(package: Path) -> None:
    before = source()
    for path in package.rglob("*.py"):
        os.utime(path, (1e9, 1e9))
    assert changed(before) == []
    tiles = package / "kernels" / "tiles.py"
    edit(tiles, "16", "32")
    os.utime(tiles, (1e8, 1e8))
    assert changed(before) == ["stepbench.kernels.tiles"]


def test_an_edit_that_keeps_size_and_time_is_seen_in_the_same_process(package: Path) -> None:
    before, tiles = source(), package / "kernels" / "tiles.py"
    stat = tiles.stat()
    edit(tiles, "16", "32")
    os.utime(tiles, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert tiles.stat().st_size == stat.st_size
    assert changed(before) == ["stepbench.kernels.tiles"]


# -- how modules are reached -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "import stepbench.extra",
        "import stepbench.extra as e",
        "from stepbench import extra",
        "from stepbench import extra as e",
        "from stepbench.extra import VALUE",
        "from stepbench.extra import *",
        "import os, stepbench.extra",
        "if True:\n    import stepbench.extra",
        "try:\n    import stepbench.extra\nexcept ImportError:\n    pass",
        "def late():\n    from stepbench.extra import VALUE\n    return VALUE",
        "class Late:\n    def late(self):\n        def later():\n            import stepbench.extra\n",
    ],
)
def test_every_way_to_import_reaches_a_module(package: Path, statement: str) -> None:
    (package / "extra.py").write_text("VALUE = 1\n")
    assert "stepbench.extra" not in source()
    (package / "models" / "layers.py").write_text(f"{statement}\n")
    before = source()
    assert "stepbench.extra" in before
    edit(package / "extra.py", "1", "2")
    assert changed(before) == ["stepbench.extra"]


def test_a_package_is_reached_with_what_its_init_imports(package: Path) -> None:
    (package / "deep" / "er").mkdir(parents=True)
    (package / "deep" / "__init__.py").write_text("from stepbench.deep import side\n")
    (package / "deep" / "side.py").write_text("")
    (package / "deep" / "er" / "__init__.py").write_text("")
    (package / "deep" / "er" / "leaf.py").write_text("")
    (package / "models" / "layers.py").write_text("import stepbench.deep.er.leaf\n")
    reached = {"stepbench.deep", "stepbench.deep.er", "stepbench.deep.er.leaf", "stepbench.deep.side"}
    assert reached <= source().keys()


@pytest.mark.parametrize("text", ["stepbench.extra", "see stepbench.extra", "stepbench.extrapolate", "extra"])
def test_a_sentence_about_a_module_does_not_reach_it(package: Path, text: str) -> None:
    (package / "extra.py").write_text("VALUE = 1\n")
    (package / "models" / "layers.py").write_text(f"MESSAGE = {text!r}\n")
    assert "stepbench.extra" not in source()


def test_modules_may_import_each_other(package: Path) -> None:
    (package / "models" / "layers.py").write_text("import stepbench.models.decoder\nimport stepbench.models.layers\n")
    assert "stepbench.models.layers" in source()


def test_other_packages_do_not_count(package: Path) -> None:
    before = source()
    (package / "models" / "layers.py").write_text("import stepbenchmark\nimport torch.nn\nLAYERS = 1\n")
    assert changed(before) == ["stepbench.models.layers"]


def test_what_was_found_in_a_text_is_kept_for_other_processes(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reach._known.clear()
    found = source()
    assert found == reach.source(MODULE)
    reach._known.clear()  # as in another process

    def parse(text: str) -> NoReturn:
        raise AssertionError(text)

    with monkeypatch.context() as patch:
        patch.setattr(reach.ast, "parse", parse)
        assert source() == found
        (package / "kernels" / "tiles.py").write_text("TILE = 32\n")
        with pytest.raises(AssertionError, match="TILE = 32"):
            source()
    assert changed(found) == ["stepbench.kernels.tiles", "stepbench/kernels/tiles.json"]


def test_a_missing_module_is_named(package: Path) -> None:
    (package / "models" / "layers.py").write_text("import stepbench.nowhere\n")
    with pytest.raises(ModuleNotFoundError, match=r"no module stepbench\.nowhere: it has no file in"):
        source()
    with pytest.raises(ModuleNotFoundError, match=r"stepbench\.experiments\.nothing"):
        reach.source("stepbench.experiments.nothing")


@pytest.mark.parametrize("named", ["kernels.unused", "kernels.fast"])
def test_the_modules_that_a_cell_names_count_with_what_they_reach(package: Path, named: str) -> None:
    (package / "kernels" / "unused.py").write_text("import stepbench.extra\n")
    (package / "extra.py").write_text("VALUE = 1\n")
    without, found = source(), reach.source(MODULE, f"stepbench.{named}")
    expected = {"stepbench.extra", "stepbench.kernels.unused"} if named == "kernels.unused" else set()
    assert found.keys() - without.keys() == expected


def test_a_registry_of_names_is_not_followed_and_does_not_count(package: Path) -> None:
    (package / "kernels" / "names.py").write_text("from stepbench.kernels import unused\nNAMES = {}\n")
    before = source()
    assert not {"stepbench.kernels.names", "stepbench.kernels.unused"} & before.keys()
    (package / "kernels" / "names.py").write_text("NAMES = {'new': 'stepbench.kernels.new'}\n")
    assert changed(before) == []


def test_a_data_file_counts_for_the_module_that_names_it(package: Path) -> None:
    before = source()
    assert "stepbench/kernels/tiles.json" in before
    (package / "kernels" / "figures.json").write_text('{"date": "another"}')
    assert changed(before) == []
    (package / "kernels" / "tiles.json").write_text('{"rows": []}')
    assert changed(before) == ["stepbench/kernels/tiles.json"]
    rendering = reach.source("stepbench.experiments.speed.tables")
    assert "stepbench/kernels/figures.json" in rendering  # by its path in the package


@pytest.mark.parametrize("name", experiments.names())
def test_no_number_depends_on_how_it_is_shown(name: str) -> None:
    """The real experiments: neither reporting nor the declaration of an experiment is part of what is measured."""
    experiment = experiments.load(name)
    reached = reach.source(f"{experiment.module}.measure")
    of_experiments = r"experiments\.(experiment|\w+\.(tables|figures|findings))"
    shown = re.compile(rf"stepbench\.(reporting|comparison|pipeline|cli|__main__|{of_experiments})\b")
    assert [module for module in reached if shown.match(module)] == []
    assert {f"{experiment.module}.measure", f"{experiment.module}.cell"} <= reached.keys()
