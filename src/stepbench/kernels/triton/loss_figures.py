"""What the kernel of head and loss costs before it ever runs, for every GPU that Triton compiles for.

Kept in loss-figures.json as the attention kernels' are in figures.json (`resources`), with a hash of the kernel's code.
"""

import ast
import datetime
import hashlib
import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton
from triton.compiler import ASTSource

from stepbench.kernels.heads import triton_loss as loss
from stepbench.kernels.heads.contract import IGNORED
from stepbench.kernels.triton.compiling import SHARED_BYTES, compile_source

FIGURES = Path(__file__).with_name("loss-figures.json")
DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


def shipped_variants() -> list[dict[str, Any]]:
    """Return a row for each architecture and dtype, without its figures; Turing has no bfloat16."""
    tile = f"{loss.COLUMNS}, {loss.WARPS} warps"
    return [
        {"kernel": "cross_entropy", "architecture": architecture, "dtype": dtype, "tile": tile}
        for architecture in SHARED_BYTES
        for dtype in DTYPES
        if (architecture, dtype) != ("sm_75", "bfloat16")
    ]


def with_figures(variant: dict[str, Any]) -> dict[str, Any]:
    """Return a variant of `shipped_variants` with its figures, compiled exactly as a launch specialises it."""
    kernel: Any = loss.cross_entropy
    constants = {"IGNORED_TARGET": IGNORED, "COLUMNS": loss.COLUMNS}
    types = {"logits": f"*{DTYPES[variant['dtype']]}", "targets": "*i64", "losses": "*fp32", "scale": "fp32"}
    signature = {
        name: "constexpr" if name in constants else types.get(name, "i32")
        for name in inspect.signature(kernel.fn).parameters
    }
    aligned = {(index,): [["tt.divisibility", 16]] for index, name in enumerate(signature) if signature[name][0] == "*"}
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": loss.WARPS, "num_stages": 3}  # the stages are Triton's default
    return variant | compile_source(source, variant["architecture"], options, name=str(variant)).figures


def read_figures(path: Path = FIGURES) -> dict[str, Any]:
    """Return the kept figures: `triton`, `date`, `digest` and `rows`.

    Raises:
        ValueError: they are of another kernel than today's.
    """
    figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if figures["digest"] != (digest := figures_digest()):
        raise ValueError(
            f"{path.name} must be of today's kernel, digest {digest}, got {figures['digest']}: "
            "`python -m stepbench kernels --head --compile` makes it anew"
        )
    return figures


def write_figures(rows: Sequence[dict[str, Any]], path: Path = FIGURES) -> None:
    """Keep figures, one row a line."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    head = {"triton": triton.__version__, "date": today, "digest": figures_digest()}
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    body = ",\n".join(f"    {json.dumps(row, ensure_ascii=False)}" for row in rows)
    path.write_text("\n".join(["{", *lines, '  "rows": [', body, "  ]", "}", ""]), encoding="utf-8")


def figures_digest() -> str:
    """Return a short hash of the kernel's code, its docstring left out, and of its tile."""
    tree = ast.parse(inspect.getsource(loss.cross_entropy.fn))
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)  # noqa: S101 - a kernel is a function
    function.body = function.body[1:]
    return hashlib.sha256(repr((ast.unparse(tree), loss.COLUMNS, loss.WARPS)).encode()).hexdigest()[:16]
