"""The modules of stepbench that a number depends on, with a hash of each.

Starting from an experiment's `measure` and the modules that the cell's values select, this follows plain imports
anywhere in a file. It hashes the syntax tree without docstrings and without the types of arguments, so comments and
file times do not matter. A data file counts for the modules whose text names it.

Not followed and not hashed:

- the pipeline, which decides what is measured and changes no number;
- registries of names (`names.py`): a cell depends on the modules that it selects, not on all that are registered;
- imports under `TYPE_CHECKING`, which are never executed;
- what an experiment declares about itself in `cell.py` (its title, what it reads): `DECLARED`.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import platform
import re
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from stepbench.pipeline.fingerprint import digest, keep

PACKAGE = "stepbench"
ROOT = Path(__file__).parents[1]
NOT_FOLLOWED = (f"{PACKAGE}.pipeline",)
REGISTRY = "names"
ARCHITECTURE = re.compile(r"sm_\d+")
DECLARED = ("TITLE", "QUESTION", "SETTINGS", "READS")  # what SETTINGS names is the definition, a part of its own
# A cached result is valid for this version of the reader and for the Python that parsed the text.
_READER = (platform.python_version(), Path(__file__).read_text(encoding="utf-8"))


def source(*modules: str, memo: Path | None = None, architecture: str | None = None) -> dict[str, str]:
    """Return a hash of these modules and of every stepbench module that they import, directly or indirectly.

    Args:
        *modules: dotted names, such as `stepbench.experiments.warmup.measure`.
        memo: a folder that caches the result for each file's text across processes; parsing the whole package takes
            two seconds.
        architecture: such as `sm_90`: of a data file with a section for each architecture this one alone counts. None
            for the whole file.

    Returns:
        Dotted module name -> 16 hexadecimal digits, and `stepbench/<path>` for the data files (.json) that they name.

    Raises:
        ModuleNotFoundError: a module is not in the package.
    """
    files, data = _files()
    hashes: dict[str, str] = {}
    waiting = {part for module in modules for part in _with_packages(module)}
    while waiting:
        name = waiting.pop()
        if name in hashes or not _followed(name):
            continue
        if name not in files:
            raise ModuleNotFoundError(f"no module {name}: it has no file in {ROOT}")
        found = _read(files[name].read_text(encoding="utf-8"), memo)
        hashes[name] = found.digest
        waiting |= found.modules(files)
        for text in found.strings:
            beside = (files[name].parent / text).relative_to(ROOT).as_posix()
            for file in {text, beside} & data.keys():
                hashes[f"{PACKAGE}/{file}"] = digest(_counted(data[file].read_bytes(), architecture))
    return dict(sorted(hashes.items()))


def _counted(content: bytes, architecture: str | None) -> bytes:
    """Return what counts of a data file: another architecture's tile shapes change no number of this one."""
    if architecture is None:
        return content
    found = json.loads(content)
    if not isinstance(found, dict) or not found or not all(map(ARCHITECTURE.fullmatch, found)):
        return content
    return json.dumps(found.get(architecture), sort_keys=True).encode()


def _followed(name: str) -> bool:
    within = any(name == each or name.startswith(f"{each}.") for each in NOT_FOLLOWED)
    return not within and name.rpartition(".")[2] != REGISTRY


def _with_packages(name: str) -> list[str]:
    """Return a module and its packages, whose `__init__` Python executes first."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


def _files() -> tuple[dict[str, Path], dict[str, Path]]:
    """Return each module's file by its dotted name, and the data files (.json) by their paths in the package.

    It walks the package once, because looking up each name took most of a fingerprint's time.
    """
    modules: dict[str, Path] = {}
    data: dict[str, Path] = {}
    for top, folders, files in os.walk(ROOT, onerror=_raise, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        folder = Path(top)
        package = ".".join((PACKAGE, *folder.relative_to(ROOT).parts))
        for name in files:
            if name == "__init__.py":
                modules[package] = folder / name
            elif name.endswith(".py"):
                modules.setdefault(f"{package}.{name.removesuffix('.py')}", folder / name)
            elif name.endswith(".json"):
                data[(folder / name).relative_to(ROOT).as_posix()] = folder / name
    return modules, data


def _raise(error: OSError) -> None:
    """Raise if a folder cannot be listed; `os.walk` would treat it as empty."""
    raise error


@dataclasses.dataclass(frozen=True)
class _Found:
    """The result of parsing a file.

    Attributes:
        digest: the hash of its syntax tree.
        imported: the stepbench modules that it imports.
        perhaps: names that it imports from these, which may also be modules.
        strings: its string constants that may name a data file.
    """

    digest: str
    imported: frozenset[str]
    perhaps: frozenset[str]
    strings: frozenset[str]

    def modules(self, there: Container[str]) -> set[str]:
        """Return the imported modules, the modules in `perhaps` that exist in `there`, and their packages."""
        names = (*self.imported, *(name for name in self.perhaps if name in there))
        return {part for name in names for part in _with_packages(name)}


# Keyed by the text, because an edit may keep the file's time and size.
_known: dict[str, _Found] = {}


def _read(text: str, memo: Path | None) -> _Found:
    if text not in _known:
        _known[text] = _remembered(text, memo)
    return _known[text]


def _remembered(text: str, memo: Path | None) -> _Found:
    kept = None if memo is None else memo / f"{digest(repr((_READER, text)))}.json"
    if kept is not None and kept.exists():
        values: Mapping[str, list[str]] = json.loads(kept.read_text(encoding="utf-8"))
        return _Found(str(values["digest"]), *(frozenset(values[key]) for key in ("imported", "perhaps", "strings")))
    tree = ast.parse(text)
    found = _Found(_digest(tree), *_named(tree))
    if kept is not None:
        fields = {key: sorted(getattr(found, key)) for key in ("imported", "perhaps", "strings")}
        keep(kept, json.dumps({"digest": found.digest, **fields}))
    return found


def _named(tree: ast.Module) -> Iterable[frozenset[str]]:
    """Return the stepbench modules that a file imports, the names that may be modules, and its .json strings."""
    imported: set[str] = set()
    perhaps: set[str] = set()
    strings: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names if _ours(alias.name))
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module and _ours(node.module):
            imported.add(node.module)
            perhaps.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.endswith(".json"):
            strings.add(node.value)
    return frozenset(imported), frozenset(perhaps), frozenset(strings)


def _ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def _digest(tree: ast.Module) -> str:
    """Return a hash of a file's syntax tree without docstrings, types of arguments and `DECLARED`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _documented(node):
            node.body = node.body[1:] or ([] if isinstance(node, ast.Module) else [ast.Pass()])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return digest("\n".join(ast.dump(statement) for statement in tree.body if not _declares(statement)))


def _declares(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) in DECLARED


def _documented(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
