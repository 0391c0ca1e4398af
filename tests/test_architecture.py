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

# What needs the standard library and each other alone.
STANDARD_LIBRARY_ONLY = (
    "pipeline.cells",
    "pipeline.grids",
    "pipeline.mistakes",
    "pipeline.records",
    "pipeline.fingerprint",
    "pipeline.reach",
    "measure.out_of_memory",
    "process.failures",
    "process.lifeline",
    "process.lock",
    "process.storage",
    "terminal",
    "kernels.names",
    "kernels.heads.names",
    "experiments.experiment",
)
# What Snakemake's process imports when it reads the Snakefile; third parties that it may use are light.
PARSED = ("pipeline.workflow", "pipeline.staleness", "process.attempt", "cli.main")
LIGHT = {"jsonschema", "yaml", "psutil", "pynvml", "rich"}

# For every package: what differs between versions of torch and Triton. It imports nothing of ours.
VERSIONS = "versions"
# For every package: how code of the user's own is run.
OWN_CODE = "own_code"
# For every package: what a GPU's capability is called. It imports nothing.
ARCHITECTURES = "architectures"
# For every package: messages for the user. It imports nothing of ours.
TERMINAL = "terminal"
FOR_ALL = (VERSIONS, OWN_CODE, ARCHITECTURES, TERMINAL)
MEASURED = {"kernels", "models", "data", "measure", "parallel"}
# Which packages a package may import.
MAY_IMPORT = {
    "kernels": {"kernels"},
    "models": {"models"},
    "data": {"data", "process"},  # whose workers end with their parent
    "measure": {"measure"},
    "parallel": {"parallel", "process"},
    "workloads": {"workloads", *MEASURED},
    "reporting": {"reporting", "pipeline", "process", "measure"},  # process writes files
    "comparison": {"comparison", "reporting", "pipeline", "process", "experiments"},  # process writes files
    "pipeline": {"pipeline", "process", "experiments", "data", "measure", "models", "reporting", "comparison"},
    "process": {"process", "pipeline", "experiments", "measure"},
    "cli": {"cli", "pipeline", "process", "experiments", "comparison", "reporting", "kernels", "measure", "workloads"},
}
# Which modules of other packages a part of an experiment may import, beside those of its own folder.
CELL = {"kernels.names", "kernels.heads.names", "parallel.names", "pipeline.cells"}
MEASURES = {"workloads", VERSIONS, ARCHITECTURES, *MEASURED}
# Of two modules of `measure` the names of categories, of one the function that a record holds.
TELLS = {"reporting", ARCHITECTURES, "measure.memory_timeline", "measure.allocator_memory", "measure.envelope"}
PARTS = ("cell", "measure", "tables", "figures", "findings")
# Files that are over 300 lines today. The list may only get shorter.
LONG: dict[str, int] = {}
LONGEST_LINES = 300


class Import:
    """One import: the module or name that it asks for, and where it stands."""

    def __init__(self, file: Path, node: ast.stmt, name: str, *, late: bool, typing: bool) -> None:
        self.file, self.name, self.late, self.typing = file, name, late, typing
        self.place = f"{file.relative_to(ROOT)}:{node.lineno} imports {name}"
        self.top = name.partition(".")[0]

    @property
    def module(self) -> str | None:
        """The dotted name of the stepbench module that is imported, without the package's; None for other packages."""
        if self.top != "stepbench":
            return None
        words = self.name.split(".")[1:]
        return next((found for end in range(len(words), 0, -1) if (found := ".".join(words[:end])) in MODULES), None)

    @property
    def part(self) -> str | None:
        """The package of stepbench that is imported."""
        return None if self.module is None else self.module.partition(".")[0]

    @property
    def importer(self) -> str:
        """The dotted name of the module that imports, without the package's."""
        return name_of(self.file)


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


def name_of(file: Path) -> str:
    words = file.relative_to(SOURCE).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


def part_of(file: Path) -> str:
    return name_of(file).partition(".")[0]


MODULES = {name_of(file): file for file in FILES}
# Names of experiments that are words of the field as well: an axis, a category, a quantity.
ORDINARY_WORDS = {"attention", "memory", "profile", "warmup", "fsdp", "checkpointing"}

ALL = [each for file in FILES for each in imports(file)]


def test_there_is_something_to_check() -> None:
    assert len(FILES) > 20
    assert {"torch", "stepbench"} <= {each.top for each in ALL}


def test_no_import_is_relative() -> None:
    assert ALL  # `imports` refuses them


def test_the_spine_needs_the_standard_library_and_itself_alone() -> None:
    found = [each for each in ALL if each.importer in STANDARD_LIBRARY_ONLY]
    assert {each.importer for each in found} == set(STANDARD_LIBRARY_ONLY)
    allowed = sys.stdlib_module_names | {"stepbench"}
    assert [e.place for e in found if e.top not in allowed] == []
    assert [e.place for e in found if e.module and e.module not in STANDARD_LIBRARY_ONLY] == []


def test_what_reads_the_snakefile_imports_nothing_heavy() -> None:
    allowed = sys.stdlib_module_names | {"stepbench"} | LIGHT
    files = _imported_when_parsing()
    early = [each for each in ALL if each.file in files and not each.late and not each.typing]
    assert [e.place for e in early if e.top not in allowed or e.part in ("reporting", "comparison")] == []


def _imported_when_parsing() -> set[Path]:
    """Return the files that reading the Snakefile imports, following imports that stand outside of functions."""
    found: set[Path] = set()
    waiting = [MODULES[name] for name in PARSED] + sorted((SOURCE / "experiments").glob("*/cell.py"))
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            now = [e.module for e in imports(file) if not e.late and not e.typing and e.module]
            names = {".".join(name.split(".")[:end]) for name in now for end in range(1, len(name.split(".")) + 1)}
            waiting += [MODULES[name] for name in names]
    return found


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_between_packages_point_one_way(part: str) -> None:
    """Imports for types count: a reader follows them as well."""
    wrong = [e.place for e in ALL if part_of(e.file) == part and e.part not in (None, *FOR_ALL, *MAY_IMPORT[part])]
    assert wrong == []


def test_every_package_is_looked_at() -> None:
    packages = {path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()}
    assert packages == {*MAY_IMPORT, "experiments"}


def test_no_import_closes_a_circle() -> None:
    """Neither late nor type-only imports do."""
    graph = {name: {e.module for e in imports(file) if e.module != name} for name, file in MODULES.items()}
    known: dict[str, int] = {}  # 1: being followed, 2: followed to its ends
    path: list[str] = []

    def follow(name: str) -> list[str]:
        known[name] = 1
        path.append(name)
        for other in sorted(found for found in graph[name] if found):
            if known.get(other) == 1:
                return [*path[path.index(other) :], other]
            if other not in known and (circle := follow(other)):
                return circle
        path.pop()
        known[name] = 2
        return []

    assert next((circle for name in graph if name not in known and (circle := follow(name))), []) == []


@pytest.mark.parametrize("name", experiments.names())
def test_an_experiment_is_a_folder_of_parts_that_know_what_they_need(name: str) -> None:
    folder = SOURCE / "experiments" / name
    assert {f"{part}.py" for part in PARTS} <= {path.name for path in folder.iterdir()}
    own = f"experiments.{name}."
    for each in (e for e in ALL if e.file.parent == folder and e.module and not e.module.startswith(own)):
        part = each.file.stem
        allowed = CELL if part == "cell" else TELLS if part in ("tables", "figures", "findings") else MEASURES | TELLS
        assert each.module in allowed or each.part in allowed, each.place
    torch_free = [
        e for e in ALL if e.file.parent == folder and e.file.stem in ("cell", "tables", "figures", "findings")
    ]
    assert [e.place for e in torch_free if e.top in ("torch", "triton")] == []


def test_a_cell_is_read_without_third_parties() -> None:
    cells_ = [e for e in ALL if e.file.stem == "cell" and part_of(e.file) == "experiments"]
    assert [e.place for e in cells_ if e.top not in sys.stdlib_module_names | {"stepbench"}] == []


def test_no_experiment_is_named_in_reporting() -> None:
    names = set(experiments.names())
    files = [file for file in FILES if part_of(file) == "reporting"]
    assert [str(file) for file in files if file.stem in names] == []
    strings = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.value}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in names - ORDINARY_WORDS
    ]
    assert strings == []


def test_no_file_is_longer_than_it_was() -> None:
    """300 lines are enough for one idea."""
    lengths = {str(file.relative_to(SOURCE)): len(file.read_text(encoding="utf-8").splitlines()) for file in FILES}
    over = {name: length for name, length in lengths.items() if length > LONG.get(name, LONGEST_LINES)}
    assert over == {}
    assert {name for name in LONG if lengths.get(name, 0) <= LONGEST_LINES} == set(), "take these off the list"


# Comparisons of a device with "cuda" outside of the one place for devices: kernels that are written for CUDA, what
# torch has for CUDA alone, and the memory of a machine. The list may only get shorter.
ASKS_FOR_CUDA = {
    "experiments/collectives/measure.py": 1,
    "experiments/fits/ways.py": 1,
    "experiments/ladder/measure.py": 1,
    "experiments/memory/findings.py": 1,
    "kernels/compiled.py": 1,
    "kernels/contract.py": 1,
    "kernels/heads/triton.py": 1,
    "kernels/triton/launch.py": 1,
    "measure/allocator_memory.py": 1,
    "measure/memory.py": 1,
    "measure/nsys.py": 1,
    "measure/predicted_memory.py": 1,
    "models/precision.py": 2,
    "parallel/team.py": 1,
    "parallel/traffic.py": 1,
    "pipeline/workflow.py": 1,
    "workloads/profiled.py": 1,
    "workloads/step.py": 1,  # CUDA graphs
}


def test_devices_differ_in_one_place() -> None:
    found: dict[str, int] = {}
    for file in FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and any(
                isinstance(side, ast.Constant) and side.value == "cuda" for side in (node.left, *node.comparators)
            ):
                name = str(file.relative_to(SOURCE))
                found[name] = found.get(name, 0) + 1
    for name in ("measure/devices.py", "measure/device_probe.py"):  # that place
        found.pop(name)
    assert {name: count for name, count in found.items() if count > ASKS_FOR_CUDA.get(name, 0)} == {}
    assert {name for name in ASKS_FOR_CUDA if name not in found} == set(), "take these off the list"


def test_the_user_is_told_in_one_place() -> None:
    """`print` makes two writes of a line where Python does not buffer; two processes' lines then run together."""
    writes = re.compile(r"file=sys\.stderr|stderr\.write")
    assert [name_of(file) for file in FILES if writes.search(file.read_text(encoding="utf-8"))] == [TERMINAL]


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
    assert users <= {
        "experiments/experiment.py",
        "kernels/__init__.py",  # these two resolve public names when they are asked for
        "kernels/api.py",
        "kernels/heads/api.py",
        "parallel/__init__.py",
        "parallel/strategies.py",
        "parallel/rank.py",
    }


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
    pattern = ",".join(f"{axis.name}~{{{axis.name}}}" for axis in cells.axes(experiments.load(name).cell))
    assert f'"<results>/{name}/{pattern}.json"' in text
    assert f'"<results>/logs/{name}/{pattern}.log"' in text
    for rule in (f"measure_{name}", f"render_{name}", name):
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
