"""A fingerprint says what a number depends on; a record whose fingerprint differs from today's is stale.

It has four parts, kept as plain values so that a difference can be named:

- `source`: a hash for the experiment's own code and for every stepbench module that it reaches by imports. What is
  hashed is the syntax tree without docstrings and without the types of arguments: neither a comment nor a file's time
  counts.
- `definition`: the settings of config.yaml that the experiment uses.
- `software`: versions of torch, triton, CUDA, the driver and Python.
- `machine`: the device, its count, and the threads used for measuring.

Of an experiment's own module only what `measure` and the cell can reach by name is hashed: how its tables and figures
look stands in the same file and changes no number.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import symtable
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

PACKAGE = "stepbench"
_NAMED = re.compile(rf"{PACKAGE}(\.\w+)+(:\w+)?")
ROOT = Path(__file__).parents[1]
# What is kept of a text holds for the reader that found it, and for the Python that parsed it.
_READER = (platform.python_version(), Path(__file__).read_text(encoding="utf-8"))


def source(module: str, roots: Iterable[str] | None = None, memo: Path | None = None) -> dict[str, str]:
    """Return a hash for `module` and for every stepbench module that it reaches by imports.

    Args:
        module: a dotted name, such as `stepbench.experiments.warmup`.
        roots: names defined in `module`; only these and what they use count, there and in what is imported. All of the
            module counts where this is None.
        memo: a folder that keeps what was found in a file's text, for other processes; parsing the whole package takes
            two seconds.

    Returns:
        Dotted module name -> 16 hexadecimal digits; likewise for the data files (.json) that lie beside these modules.

    Raises:
        ModuleNotFoundError: there is no such module in the package.
    """
    modules, data = _files()
    found = _read(_text(module, modules), None if roots is None else frozenset(roots), memo)
    hashes = {module: found.digest}
    waiting = found.modules(modules)
    while waiting:
        name = waiting.pop()
        if name not in hashes:
            found = _read(_text(name, modules), None, memo)
            hashes[name] = found.digest
            waiting |= found.modules(modules)
    for folder in {modules[name].parent for name in hashes}:
        for file in data.get(folder, ()):
            hashes[f"{PACKAGE}/{file.relative_to(ROOT)}"] = digest(file.read_bytes())
    return dict(sorted(hashes.items()))


def software() -> dict[str, str | None]:
    """Return the versions that can change a number, without importing what they are the versions of."""
    torch_version, cuda = _torch_version()
    return {
        "torch": torch_version,
        "triton": _version("triton"),
        "cuda": cuda,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def difference(old: Any, new: Mapping[str, Any]) -> list[str]:
    """Return one short phrase for each thing in which the fingerprint `old` differs from `new`; none if equal."""
    if not isinstance(old, Mapping):
        return ["the record has no fingerprint"]
    phrases = []
    for part in sorted(old.keys() | new.keys()):
        before, after = _flat(old.get(part, {})), _flat(new.get(part, {}))
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) == after.get(key) and (key in before) == (key in after):
                continue
            if part == "source":
                change = "changed" if key in before and key in after else "is new" if key in after else "is gone"
                phrases.append(f"source: {key} {change}")
            else:
                phrases.append(f"{part}: {key} was {before.get(key)!r}, is {after.get(key)!r}")
    return phrases


def content(path: Path, memo: Path) -> str:
    """Return a digest of a file's bytes, or `missing`.

    A large file is read once for each size and time it has had; the answer is kept in the folder `memo`.
    """
    if not path.exists():
        return "missing"
    stat = path.stat()
    kept = memo / f"{digest(f'{path.resolve()} {stat.st_size} {stat.st_mtime_ns}')}.txt"
    if kept.exists():
        return kept.read_text(encoding="ascii")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    _keep(kept, found)
    return found


def digest(value: str | bytes) -> str:
    """Return 16 hexadecimal digits that stand for `value`."""
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()[:16]


def _files() -> tuple[dict[str, Path], dict[Path, list[Path]]]:
    """Return the file of each module of the package, by its dotted name, and the data files (.json) of each folder.

    One walk over the package, and not a look for each name, which was most of a fingerprint's time.
    """
    modules: dict[str, Path] = {}
    data: dict[Path, list[Path]] = {}
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
                data.setdefault(folder, []).append(folder / name)
    return modules, data


def _raise(error: OSError) -> None:
    """Have a folder that cannot be listed not pass for an empty one."""
    raise error


def _text(module: str, modules: Mapping[str, Path]) -> str:
    if module not in modules:
        raise ModuleNotFoundError(f"{module} must be a module of {PACKAGE}, but it has no file in {ROOT}")
    return modules[module].read_text(encoding="utf-8")


def _parsed(text: str) -> ast.Module:
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and _has_docstring(
            node
        ):
            node.body = node.body[1:] or ([] if isinstance(node, ast.Module) else [ast.Pass()])
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
    return tree


def _has_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    first = node.body[0] if node.body else None
    return isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)


def _digest(body: list[ast.stmt]) -> str:
    return digest("\n".join(ast.dump(statement) for statement in body))


@dataclasses.dataclass(frozen=True)
class _Found:
    """What a file's text says: its hash, the stepbench modules that it imports, and names that may be of modules."""

    digest: str
    imported: frozenset[str]
    perhaps: frozenset[str]

    def modules(self, there: Container[str]) -> set[str]:
        """Return the modules, with the packages that hold them; names count that are `there`."""
        parts = [name.split(".") for name in (*self.imported, *(name for name in self.perhaps if name in there))]
        return {".".join(each[:end]) for each in parts for end in range(1, len(each) + 1)}


# Keyed by the text itself: an edit may keep the file's time and size.
_known: dict[tuple[str, frozenset[str] | None], _Found] = {}


def _read(text: str, roots: frozenset[str] | None, memo: Path | None) -> _Found:
    """Return what counts of a module's text: all of it, or what `roots` reach."""
    if (text, roots) not in _known:
        _known[text, roots] = _remembered(text, roots, memo)
    return _known[text, roots]


def _remembered(text: str, roots: frozenset[str] | None, memo: Path | None) -> _Found:
    kept = None if memo is None else memo / f"{digest(repr((_READER, sorted(roots or ()), roots is None, text)))}.json"
    if kept is not None and kept.exists():
        values = json.loads(kept.read_text(encoding="utf-8"))
        return _Found(values["digest"], frozenset(values["imported"]), frozenset(values["perhaps"]))
    tree = _parsed(text)
    body = tree.body if roots is None else _reachable(tree, roots)
    found = _Found(_digest(body), *map(frozenset, _named(body)))
    if kept is not None:
        values = {"digest": found.digest, "imported": sorted(found.imported), "perhaps": sorted(found.perhaps)}
        _keep(kept, json.dumps(values))
    return found


def _keep(path: Path, text: str) -> None:
    """Write a file of a memo, whole or not at all; another process may write the same one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_suffix(f".{os.getpid()}")
    whole.write_text(text, encoding="utf-8")
    whole.replace(path)


def _named(body: Iterable[ast.stmt]) -> tuple[set[str], set[str]]:
    """Return the stepbench modules that statements import, wherever in them, and the names that may be of others."""
    imported: set[str] = set()
    perhaps: set[str] = set()
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Import):
                imported.update(alias.name for alias in node.names if _ours(alias.name))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAMED.fullmatch(node.value):
                perhaps.add(node.value.partition(":")[0])  # a registry names what it imports later
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module and _ours(node.module):
                imported.add(node.module)
                perhaps.update(f"{node.module}.{alias.name}" for alias in node.names)
    return imported, perhaps


def _ours(name: str) -> bool:
    return name == PACKAGE or name.startswith(f"{PACKAGE}.")


def _reachable(tree: ast.Module, roots: frozenset[str]) -> list[ast.stmt]:
    """Return the top-level statements that define `roots` or a name that these use, in the order of the file."""
    defined_by: dict[str, list[ast.stmt]] = {}
    for statement in tree.body:
        for name in _defines(statement):
            defined_by.setdefault(name, []).append(statement)
    if missing := sorted(roots - defined_by.keys()):
        raise NameError(f"an experiment's module must define {', '.join(sorted(roots))}, but {missing[0]} is missing")
    kept: set[int] = set()
    waiting = list(roots)
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for statement in defined_by.get(name, []):
            kept.add(id(statement))
            waiting.extend(_uses(statement))
    return [statement for statement in tree.body if id(statement) in kept]


def _defines(statement: ast.stmt) -> set[str]:
    """Return the names that a top-level statement binds in the module, inside an `if` or a `try` as well."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in statement.names}
    names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for inner in ast.iter_child_nodes(statement):
        if isinstance(inner, ast.stmt):
            names |= _defines(inner)
    return names


def _uses(statement: ast.stmt) -> set[str]:
    """Return the module's names that a top-level statement may use, in whatever scope inside it."""
    used: set[str] = set()
    scopes = [symtable.symtable(ast.unparse(statement), "<statement>", "exec")]
    while scopes:
        scope = scopes.pop()
        scopes.extend(scope.get_children())
        # The body of a class looks in the module for what it has not bound yet; a function's never does.
        looks_further = scope.get_type() != "function"
        symbols = scope.get_symbols()
        used.update(s.get_name() for s in symbols if s.is_global() or (looks_further and s.is_referenced()))
    return used


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        # An empty mapping stands for itself, so that its coming and going is a difference.
        if isinstance(inner, Mapping) and inner:
            flat.update(_flat(inner, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = inner
    return flat


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _torch_version() -> tuple[str | None, str | None]:
    """Return torch's version and its CUDA, read from its version.py: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None, None
    text = (Path(spec.submodule_search_locations[0]) / "version.py").read_text(encoding="utf-8")
    values = {
        key: re.search(rf"^{key}(?::[^=]*)?\s*=\s*'([^']*)'", text, re.MULTILINE) for key in ("__version__", "cuda")
    }
    return tuple(match.group(1) if match else None for match in values.values())  # type: ignore[return-value]
