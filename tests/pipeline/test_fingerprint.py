import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import fingerprint

EXPERIMENT = '''
"""A question."""

from __future__ import annotations

from dataclasses import dataclass

from stepbench.shared import MEASURE_ONLY, Setting

WIDTH = 4
COLOUR = "red"


@dataclass(frozen=True)
class Cell:
    """A cell."""

    size: str
    replicate: int = 0


def measure(cell: Cell, setting: Setting) -> object:
    """Measure it."""
    from stepbench.kernels import fast

    # The work.
    return _work(cell.size) + fast.run(WIDTH) + MEASURE_ONLY


def _work(size: str) -> int:
    import stepbench.models.decoder as decoder

    return decoder.build(size)


def tabulate(results):
    from stepbench.reporting import tables

    return tables.make(results, COLOUR)
'''

FILES = {
    "__init__.py": "",
    "shared.py": "MEASURE_ONLY = 1\nclass Setting: pass\n",
    "kernels/__init__.py": "",
    "kernels/fast.py": "from stepbench.kernels.tiles import TILE\ndef run(n: int) -> int:\n    return n + TILE\n",
    "kernels/tiles.py": "TILE = 16\n",
    "kernels/unused.py": "TILE = 16\n",
    "models/__init__.py": "",
    "models/decoder.py": "import stepbench.models.layers\ndef build(size):\n    return 1\n",
    "models/layers.py": "LAYERS = 1\n",
    "reporting/__init__.py": "",
    "reporting/tables.py": "def make(results, colour): ...\n",
    "experiments/__init__.py": "",
    "experiments/speed.py": EXPERIMENT,
}
MODULE = "stepbench.experiments.speed"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of its own in stepbench's place."""
    for name, text in FILES.items():
        path = tmp_path / "stepbench" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(fingerprint, "ROOT", tmp_path / "stepbench")
    return tmp_path / "stepbench"


def source() -> dict[str, str]:
    return fingerprint.source(MODULE, ("measure", "Cell"), fingerprint.ROOT.parent / "memo")


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
        "stepbench.experiments.speed",
        "stepbench.kernels",
        "stepbench.kernels.fast",
        "stepbench.kernels.tiles",
        "stepbench.models",
        "stepbench.models.decoder",
        "stepbench.models.layers",
        "stepbench.shared",
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
    monkeypatch.setattr(fingerprint, "ROOT", package / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        source()


def test_without_roots_all_of_the_module_counts(package: Path) -> None:
    assert "stepbench.reporting.tables" in fingerprint.source(MODULE)
    assert "stepbench.reporting.tables" in fingerprint.source(MODULE, ("tabulate",))


@pytest.mark.parametrize(
    ("file", "old", "new", "module"),
    [
        ("kernels/fast.py", "n + TILE", "n - TILE", "stepbench.kernels.fast"),
        ("kernels/tiles.py", "16", "32", "stepbench.kernels.tiles"),
        ("models/layers.py", "1", "2", "stepbench.models.layers"),
        ("shared.py", "1", "2", "stepbench.shared"),
        ("experiments/speed.py", "WIDTH = 4", "WIDTH = 8", MODULE),
        ("experiments/speed.py", "replicate: int = 0", "replicate: int = 1", MODULE),
        ("experiments/speed.py", "size: str\n", "size: int\n", MODULE),
        ("experiments/speed.py", "_work(cell.size) + fast", "_work(cell.size) * fast", MODULE),
        ("experiments/speed.py", "decoder.build(size)", "decoder.build(size + '')", MODULE),
        ("experiments/speed.py", "@dataclass(frozen=True)", "@dataclass", MODULE),
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
        ("experiments/speed.py", '"""A question."""', '"""Another question,\n\nat length."""'),
        ("experiments/speed.py", '    """Measure it."""\n', ""),
        ("experiments/speed.py", '    """A cell."""', '    """A cell of a grid."""'),
        ("experiments/speed.py", "# The work.", "# The real work."),
        ("experiments/speed.py", "    # The work.\n", ""),
        ("experiments/speed.py", "cell: Cell, setting: Setting) -> object", "cell, setting)"),
        ("experiments/speed.py", "def _work(size: str) -> int:", "def _work(size: 'str') -> float:"),
        ("experiments/speed.py", 'COLOUR = "red"', 'COLOUR = "blue"'),
        ("experiments/speed.py", "return tables.make(results, COLOUR)", "return tables.make(results, COLOUR + '1')"),
        ("experiments/speed.py", "+ fast.run(WIDTH) +", "+ fast.run(\n        WIDTH,\n    ) +"),
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
        "REGISTRY = {'fast': 'stepbench.extra'}",
        "REGISTRY = {'fast': 'stepbench.extra:VALUE'}",
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


@pytest.mark.parametrize("text", ["stepbench.extra is slow", "see stepbench.extra", "stepbench.extrapolate", "extra"])
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
    fingerprint._known.clear()
    found = source()
    assert found == fingerprint.source(MODULE, ("measure", "Cell"))
    fingerprint._known.clear()  # as in another process

    def parse(text: str) -> NoReturn:
        raise AssertionError(text)

    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "_parsed", parse)
        assert source() == found
        (package / "kernels" / "tiles.py").write_text("TILE = 32\n")
        with pytest.raises(AssertionError, match="TILE = 32"):
            source()
    assert changed(found) == ["stepbench.kernels.tiles"]


def test_a_missing_module_is_named(package: Path) -> None:
    (package / "models" / "layers.py").write_text("import stepbench.nowhere\n")
    with pytest.raises(
        ModuleNotFoundError, match=r"stepbench\.nowhere must be a module of stepbench, but it has no file in"
    ):
        source()
    with pytest.raises(ModuleNotFoundError, match=r"stepbench\.experiments\.nothing"):
        fingerprint.source("stepbench.experiments.nothing")


def test_a_missing_root_is_named(package: Path) -> None:
    with pytest.raises(NameError, match="must define Cell, mesure, but mesure is missing"):
        fingerprint.source(MODULE, ("mesure", "Cell"))


@pytest.mark.parametrize(
    "body",
    [
        "def measure(cell, setting):\n    return helper()",
        "def measure(cell, setting):\n    return [helper() for _ in range(3)]",
        "def measure(cell, setting, work=helper):\n    return work()",
        "@helper\ndef measure(cell, setting):\n    return 1",
        "def measure(cell, setting):\n    return middle()\ndef middle():\n    return helper()",
        "def measure(cell, setting):\n    return TABLE['x']()\nTABLE = {'x': helper}",
        "def measure(cell, setting):\n    return Runner().go()\nclass Runner:\n    def go(self): return helper()",
        "def measure(cell, setting):\n    return Runner().go()\nclass Runner(helper):\n    pass",
        "if True:\n    def measure(cell, setting):\n        return helper()",
        "async def measure(cell, setting):\n    return helper()",
        "measure = lambda cell, setting: helper()",
        # The name is the module's in one scope and a local one in another.
        "def measure(cell, setting):\n    def inner():\n        helper = 1\n        return helper\n    return helper()",
        "def measure(cell, setting):\n    def inner(helper):\n        return helper\n    return inner(helper)",
        "def measure(cell, setting):\n    found = [helper for helper in ()]\n    return helper()",
        "def measure(cell, setting):\n    return (lambda helper: helper)(helper)",
        "def measure(cell, setting):\n    class Own:\n        helper = helper\n    return Own.helper()",
        "def measure(cell, helper=helper):\n    return helper()",
        "def measure(cell, setting):\n    global helper\n    helper = helper()",
    ],
)
def test_whatever_measure_can_reach_by_name_in_its_module_counts(package: Path, body: str) -> None:
    text = f"class Cell: pass\ndef helper():\n    return 1\n{body}\ndef plot():\n    return 1\n"
    (package / "experiments" / "speed.py").write_text(text)
    before = source()
    edit(package / "experiments" / "speed.py", "helper():\n    return 1\n", "helper():\n    return 2\n")
    assert changed(before) == [MODULE]
    edit(package / "experiments" / "speed.py", "helper():\n    return 2\n", "helper():\n    return 1\n")
    edit(package / "experiments" / "speed.py", "plot():\n    return 1\n", "plot():\n    return 2\n")
    assert changed(before) == []


def test_a_local_name_like_a_functions_is_not_that_function(package: Path) -> None:
    text = """
        class Cell: pass
        def measure(cell, setting):
            plot = [1]
            for find in plot:
                print(find)
            return plot
        def plot():
            return 1
        def find():
            return 1
        """
    (package / "experiments" / "speed.py").write_text(textwrap.dedent(text))
    before = source()
    edit(package / "experiments" / "speed.py", "return 1", "return 2")
    assert changed(before) == []


@pytest.mark.parametrize("name", experiments.names())
def test_no_number_depends_on_how_it_is_shown(name: str) -> None:
    """The real experiments: neither reporting nor the declaration of an experiment is part of what is measured."""
    experiment = experiments.load(name)
    reached = fingerprint.source(experiment.module, ("measure", experiment.cell.__name__))
    shown = re.compile(r"stepbench\.(reporting|progress|workflow|bench|__main__|experiments\.experiment)\b")
    assert [module for module in reached if shown.match(module)] == []
    assert experiment.module in reached


# -- differences -------------------------------------------------------------------------------------------------------

TODAY = {
    "source": {"stepbench.a": "1", "stepbench.b": "2"},
    "definition": {"size": {"d_model": 128, "layers": 4}, "protocol": {"seed": 0}, "data": {}},
    "software": {"torch": "2.13.0", "triton": None},
    "machine": {"threads": 2},
}


def test_equal_fingerprints_have_no_difference_whatever_the_order_of_keys() -> None:
    other = {part: dict(reversed(values.items())) for part, values in reversed(TODAY.items())}
    other["definition"]["size"] = {"layers": 4, "d_model": 128}
    assert fingerprint.difference(other, TODAY) == []


@pytest.mark.parametrize(
    ("old", "phrases"),
    [
        ({"source": {"stepbench.a": "0", "stepbench.b": "2"}}, ["source: stepbench.a changed"]),
        ({"source": {"stepbench.b": "2"}}, ["source: stepbench.a is new"]),
        ({"source": TODAY["source"] | {"stepbench.c": "3"}}, ["source: stepbench.c is gone"]),
        ({"software": {"torch": "2.11.0", "triton": None}}, ["software: torch was '2.11.0', is '2.13.0'"]),
        ({"software": {"torch": "2.13.0"}}, ["software: triton was None, is None"]),
        ({"machine": {"threads": 1}}, ["machine: threads was 1, is 2"]),
        (
            {"definition": {"size": {"d_model": 4, "layers": 128}, "protocol": {"seed": 0}, "data": {}}},
            ["definition: size.d_model was 4, is 128", "definition: size.layers was 128, is 4"],
        ),
        (
            {"definition": {"size": TODAY["definition"]["size"], "protocol": {"seed": 0}}},
            ["definition: data was None, is {}"],
        ),
    ],
)
def test_a_difference_is_named(old: dict, phrases: list[str]) -> None:
    assert fingerprint.difference(TODAY | old, TODAY) == phrases


@pytest.mark.parametrize("old", [None, [], "text", 3])
def test_a_record_without_fingerprint_differs(old: object) -> None:
    assert fingerprint.difference(old, TODAY) == ["the record has no fingerprint"]


@pytest.mark.parametrize("old", [{}, {"source": 3}, {"source": []}, {"source": {"a": []}}, {"definition": {"": {}}}])
def test_a_fingerprint_of_any_other_shape_differs(old: dict) -> None:
    phrases = fingerprint.difference(old, TODAY)
    assert phrases
    assert all(isinstance(phrase, str) for phrase in phrases)


# -- software, and what parsing the Snakefile imports ------------------------------------------------------------------


def test_versions_are_told_without_importing_what_they_are_of() -> None:
    found = fingerprint.software()
    assert found["torch"] == torch.__version__
    assert found["cuda"] == torch.version.cuda
    assert found["python"] == ".".join(platform.python_version_tuple()[:2])
    try:
        assert found["triton"] == importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        assert found["triton"] is None


@pytest.mark.parametrize(
    "module",
    ["stepbench.pipeline.workflow", "stepbench.pipeline.bench", "stepbench.process.run", "stepbench.cli.commands"],
)
def test_reading_the_snakefile_imports_nothing_heavy(module: str) -> None:
    code = f"""
import sys
import {module}
from pathlib import Path
from typing import NoReturn
from stepbench.pipeline.bench import Bench
from stepbench.experiments import experiment
from stepbench.pipeline.state import States
bench = Bench.open(Path({str(Path(__file__).parents[2])!r}))
for name in experiment.names():
    for cell in bench.grid(name):
        States(bench).of(cell)
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "pandas", "matplotlib", "triton", "numpy", "scipy", "tokenizers", "jinja2", "snakemake"}
    assert heavy & set(done.stdout.split()) == set()
