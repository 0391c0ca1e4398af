"""Imports point one way, and the tree keeps its names; read from the source with `ast`, nothing is imported."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "stepbench"
FILES = sorted(SOURCE.rglob("*.py"))
RULES = [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]

STANDARD_LIBRARY_ONLY = ("cells", "grids", "records", "fingerprint", "lifeline", "lock")
# What Snakemake's process imports when it reads the Snakefile; third parties that it may use are light.
PARSED = (
    *STANDARD_LIBRARY_ONLY,
    "config",
    "bench",
    "staleness",
    "progress",
    "planning",
    "workflow",
    "run",
    "attempt",
    "__main__",
)
LIGHT = {"jsonschema", "yaml", "psutil", "pynvml", "rich"}

# Which parts of the package a part may import; `top` is what lies beside the packages.
MAY_IMPORT = {
    "kernels": {"kernels"},
    "parallel": {"parallel", "lifeline", "records"},
    "models": {"models"},
    "data": {"data", "lifeline"},  # whose workers end with their parent
    "measure": {"measure", "fingerprint"},
    "experiments": {"experiments", "measure", "models", "kernels", "parallel", "data", "reporting", "cells"},
    "reporting": {
        "reporting",
        "experiments",
        "bench",
        "planning",
        "cells",
        "records",
        "config",
        "fingerprint",
        "measure",
    },
}


class Import:
    """One import: the module or name that it asks for, and where it stands."""

    def __init__(self, file: Path, node: ast.stmt, name: str, *, late: bool, typing: bool) -> None:
        self.file, self.name, self.late, self.typing = file, name, late, typing
        self.place = f"{file.relative_to(ROOT)}:{node.lineno} imports {name}"
        self.top = name.partition(".")[0]

    @property
    def part(self) -> str | None:
        """What of stepbench is imported: a package or a module beside the packages."""
        words = self.name.split(".")
        return words[1] if words[0] == "stepbench" and len(words) > 1 else None


def imports(file: Path) -> Iterator[Import]:
    """Yield every import of a file; `late` ones stand in a function, `typing` ones are never executed."""

    def walk(node: ast.AST, *, late: bool, typing: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(file, child, alias.name, late=late, typing=typing)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{file}:{child.lineno}: a relative import hides where it points to"
                assert child.module
                for alias in child.names:
                    yield Import(file, child, f"{child.module}.{alias.name}", late=late, typing=typing)
            else:
                inside = late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                guarded = typing or (isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"))
                yield from walk(child, late=inside, typing=guarded)

    yield from walk(ast.parse(file.read_text(encoding="utf-8")), late=False, typing=False)


def part_of(file: Path) -> str:
    words = file.relative_to(SOURCE).with_suffix("").parts
    return words[0]


ALL = [each for file in FILES for each in imports(file)]


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 20
    assert {"torch", "stepbench"} <= {each.top for each in ALL}


def test_no_import_is_relative() -> None:
    assert ALL  # `imports` refuses them


def test_the_spine_needs_the_standard_library_and_itself_alone() -> None:
    allowed = sys.stdlib_module_names | {"stepbench"}
    wrong = [e.place for e in ALL if part_of(e.file) in STANDARD_LIBRARY_ONLY and e.top not in allowed]
    wrong += [
        e.place
        for e in ALL
        if part_of(e.file) in STANDARD_LIBRARY_ONLY and e.part not in (None, *STANDARD_LIBRARY_ONLY)
    ]
    assert wrong == []


def test_what_reads_the_snakefile_imports_nothing_heavy() -> None:
    allowed = sys.stdlib_module_names | {"stepbench"} | LIGHT
    files = _imported_when_parsing()
    early = [each for each in ALL if each.file in files and not each.late and not each.typing]
    assert [e.place for e in early if e.top not in allowed or e.part == "reporting"] == []


def _imported_when_parsing() -> set[Path]:
    """Return the files that reading the Snakefile imports, following imports that stand outside of functions."""
    found: set[Path] = set()
    waiting = [SOURCE / f"{name}.py" for name in PARSED] + sorted((SOURCE / "experiments").glob("[a-z]*.py"))
    while waiting:
        file = waiting.pop()
        if file in found or not file.exists():
            continue
        found.add(file)
        for each in imports(file):
            if not each.late and not each.typing and each.top == "stepbench":
                words = each.name.split(".")[1:]
                waiting += [SOURCE.joinpath(*words[:end]).with_suffix(".py") for end in range(1, len(words) + 1)]
    return found


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_between_packages_point_one_way(part: str) -> None:
    wrong = [
        e.place
        for e in ALL
        if part_of(e.file) == part and not e.typing and e.part is not None and e.part not in MAY_IMPORT[part]
    ]
    assert wrong == []


def test_every_package_is_looked_at() -> None:
    assert {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()} == set(MAY_IMPORT)


def test_experiments_import_what_is_heavy_inside_functions() -> None:
    allowed = sys.stdlib_module_names | {"stepbench"}
    early = [e for e in ALL if part_of(e.file) == "experiments" and not e.late and not e.typing]
    assert [e.place for e in early if e.top not in allowed] == []
    light = ("stepbench.experiments", "stepbench.measure.measurement", "stepbench.kernels.names")
    assert [e.place for e in early if e.top == "stepbench" and not e.name.startswith(light)] == []


def test_experiments_do_not_know_each_other() -> None:
    shared = ("stepbench.experiments.experiment", "stepbench.experiments._")
    wrong = [
        e.place
        for e in ALL
        if part_of(e.file) in ("experiments", "reporting")
        and e.name.startswith("stepbench.experiments.")
        and not e.name.startswith(shared)
    ]
    assert wrong == []


def test_reporting_never_imports_torch() -> None:
    assert [e.place for e in ALL if part_of(e.file) == "reporting" and e.top in ("torch", "triton")] == []


def test_the_package_never_imports_snakemake_or_its_tests() -> None:
    assert [e.place for e in ALL if e.top in ("snakemake", "tests", "pytest")] == []


def test_what_is_imported_by_name_is_in_a_registry_that_the_fingerprint_reads() -> None:
    """A module that is reached through a computed name would change without its records becoming stale."""
    users = {
        str(file.relative_to(SOURCE))
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute | ast.Name) and ast.unparse(node).endswith(("import_module", "__import__"))
    }
    # The last one imports again, in a rank's process, the module of a function that its caller has imported.
    assert users <= {"experiments/experiment.py", "kernels/api.py", "parallel/rank.py"}


@pytest.mark.parametrize("folder", ["src", "tests", "workflow_scripts", "rules"])
def test_no_helper_is_without_a_home(folder: str) -> None:
    homeless = re.compile(r"(^|_)(utils?|helpers?|misc|managers?|common_functions)($|_)")
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob("*")
        if homeless.search(path.name.partition(".")[0])
    ]
    assert found == []


# -- rules -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.name)
def test_rules_import_stepbench_and_snakemake_and_nothing_heavy(file: Path) -> None:
    found = re.findall(r"^\s*(?:from|import)\s+(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    allowed = ("stepbench", "snakemake.utils", "functools")
    assert [name for name in found if not name.startswith(allowed)] == []


@pytest.mark.parametrize("file", RULES, ids=lambda file: file.name)
def test_rules_define_no_functions(file: Path) -> None:
    assert not re.search(r"^\s*(def|class|async def|lambda)\b", file.read_text(encoding="utf-8"), re.MULTILINE)


def test_common_has_no_rule() -> None:
    assert not re.search(r"^\s*(rule|checkpoint)\b", (ROOT / "rules" / "common.smk").read_text(), re.MULTILINE)


@pytest.mark.parametrize("name", experiments.names())
def test_an_experiments_rules_write_its_axes_out(name: str) -> None:
    """Snakemake's user sees the axes in the rule and in every job; the dataclass is what they must be."""
    text = (ROOT / "rules" / f"{name}.smk").read_text(encoding="utf-8")
    pattern = cells.pattern(experiments.load(name).cell)
    assert f'"<results>/{name}/{pattern}.json"' in text
    assert f'"<results>/logs/{name}/{pattern}.log"' in text
    for rule in (f"measure_{name}", f"tabulate_{name}", f"plot_{name}", name):
        assert f"\nrule {rule}:\n" in f"\n{text}"
    assert f'include: "rules/{name}.smk"' in (ROOT / "Snakefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", experiments.names())
def test_an_experiment_is_called_the_same_everywhere(name: str) -> None:
    assert experiments.load(name).name == name
    assert (ROOT / "report" / "captions" / f"{name}.rst").exists()


def test_scripts_are_glue() -> None:
    for script in (ROOT / "workflow_scripts").glob("*.py"):
        lines = [line for line in script.read_text(encoding="utf-8").splitlines() if line.strip()]
        assert len(lines) <= 25, script
