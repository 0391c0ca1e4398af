"""The lines of the package that only a device enters, and how many of them a run on pretended GPUs has entered.

    make test-fake-gpu-coverage

What is counted is read from the code: the modules of `WHOLE`; statements that call torch.cuda, torch.accelerator or
NVML; what stands under a question about a device (`… == "cuda"`, `KINDS[…].is_gpu`), and what follows one that leaves
a function elsewhere. Kernels do not count: Triton compiles them, Python never enters them.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "stepbench"
LEAST = 0.90
# Modules for devices alone, without the definitions in them, which an import enters.
WHOLE = (
    "cli/gpu_check.py",
    "kernels/triton/launch.py",
    "kernels/triton/layouts.py",
    "kernels/triton/operator.py",
    "measure/device_probe.py",
    "measure/device_timing.py",
    "measure/device_watch.py",
    "measure/nvml.py",
    "workloads/captured.py",
)
CALLS = re.compile(r"\btorch\.(cuda|accelerator)\.|\bnvml\.(?!opened\b)\w|\bpynvml\.")
ASKS = re.compile(
    r"['\"]cuda['\"]|\.is_cuda\b|\.(is_gpu|has_events|counts_memory)\b|\bon_cuda\b|\bstream is not None\b"
)
LEAVES = (ast.Return, ast.Raise, ast.Continue)


def lines_of(text: str, *, whole: bool = False) -> set[int]:
    """Return the first lines of the statements that only a device enters."""
    found: set[int] = set()
    for body in _bodies(ast.parse(text)):
        inside = whole
        for statement in body:
            if isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom):
                continue
            if inside or (not _is_compound(statement) and CALLS.search(ast.unparse(statement))):
                found.add(statement.lineno)
            if isinstance(statement, ast.If) and ASKS.search(ast.unparse(statement.test)):
                if _is_negated(statement.test):
                    found |= _all(statement.orelse)
                    inside = inside or isinstance(statement.body[-1], LEAVES)
                else:
                    found |= _all(statement.body)
    return found - _docstrings(text)


def _bodies(tree: ast.AST) -> Iterator[Sequence[ast.stmt]]:
    """Yield each list of statements inside of functions, but not of kernels."""

    def walk(node: ast.AST, *, inside: bool) -> Iterator[Sequence[ast.stmt]]:
        if isinstance(node, ast.FunctionDef) and any("jit" in ast.unparse(each) for each in node.decorator_list):
            return
        inside = inside or isinstance(node, ast.FunctionDef)
        for name in ("body", "orelse", "finalbody"):
            statements = getattr(node, name, None)
            if inside and isinstance(statements, list):
                yield statements
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inside=inside)

    yield from walk(tree, inside=False)


def _all(statements: Sequence[ast.stmt]) -> set[int]:
    nodes = (node for statement in statements for node in ast.walk(statement))
    return {node.lineno for node in nodes if isinstance(node, ast.stmt)}


def _is_compound(statement: ast.stmt) -> bool:
    return hasattr(statement, "body")


def _is_negated(test: ast.expr) -> bool:
    """Tell whether a question is answered with no on a device."""
    if isinstance(test, ast.BoolOp):
        return any(_is_negated(each) for each in test.values if ASKS.search(ast.unparse(each)))
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return True
    return isinstance(test, ast.Compare) and isinstance(test.ops[0], ast.NotEq | ast.NotIn)


def _docstrings(text: str) -> set[int]:
    return {
        node.lineno
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    }


def all_lines() -> dict[str, set[int]]:
    """Return the lines that only a device enters, of each file that has some."""
    found = {}
    for file in sorted(SOURCE.rglob("*.py")):
        name = file.relative_to(SOURCE).as_posix()
        if lines := lines_of(file.read_text(encoding="utf-8"), whole=name in WHOLE):
            found[name] = lines
    return found


def main(data: str) -> int:
    """Print the share of each file that was entered, and the whole; return 1 if that is too small."""
    import coverage  # beside torch's CUDA build alone

    entered = coverage.CoverageData(data)
    entered.read()
    counted, missing = 0, 0
    for name, lines in all_lines().items():
        seen = set(entered.lines(str(SOURCE / name)) or ())
        left = sorted(lines - seen)
        counted, missing = counted + len(lines), missing + len(left)
        print(f"{1 - len(left) / len(lines):7.1%}  {len(lines):4}  {name}  {', '.join(map(str, left))}")
    share = 1 - missing / counted
    print(f"{share:7.1%}  {counted:4}  lines that only a device enters; at least {LEAST:.0%} are asked for")
    return 0 if share >= LEAST else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
