"""What differs between versions of torch and Triton stands in one module, and does there what it says."""

import ast
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from stepbench import versions

SOURCE = Path(versions.__file__).parent
FILES = [file for file in sorted(SOURCE.rglob("*.py")) if file != Path(versions.__file__)]
LIBRARIES = r"^(torch|triton|dist|tl)\b"
PRIVATE = r"(^|\.)_[A-Za-z]"
ASKING = ("hasattr", "getattr", "inspect.signature")


def questions(text: str) -> Iterator[str]:
    """Yield what in a file asks for a version, or uses a private name of torch or Triton."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module:
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in named if re.search(LIBRARIES, name) and re.search(PRIVATE, name))
            yield from (name for name in named if name.startswith("packaging"))
        elif isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
            yield from (name for name in named if re.search(LIBRARIES, name) and re.search(PRIVATE, name))
        elif isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if re.search(LIBRARIES, name) and node.attr.startswith("_") and not node.attr.startswith("__"):
                yield name
            if name == "sys.version_info":
                yield name
        elif isinstance(node, ast.Compare) and "__version__" in ast.unparse(node):
            yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ASKING:
            # Else a name is looked up, such as a dtype's.
            fixed = len(node.args) < 2 or isinstance(node.args[1], ast.Constant)
            yield from [ast.unparse(node)] if fixed and re.search(LIBRARIES, ast.unparse(node.args[0])) else []


@pytest.mark.parametrize(
    "text",
    [
        "import torch._dynamo",
        "from torch.utils._pytree import tree_map",
        "from torch._C import x",
        "from packaging.version import Version",
        "torch.cuda.memory._snapshot()",
        "dist.distributed_c10d._get_default_group()",
        "sys.version_info >= (3, 12)",
        "torch.__version__ >= '2.12'",
        "hasattr(torch, 'accelerator')",
        "getattr(torch.cuda, 'memory', None)",
    ],
)
def test_a_question_is_seen(text: str) -> None:
    assert list(questions(text))


@pytest.mark.parametrize(
    "text", ["import torch", "{'torch': torch.__version__}", "self._private", "hasattr(os, 'getloadavg')"]
)
def test_what_is_no_question_is_not(text: str) -> None:
    assert list(questions(text)) == []


def test_no_other_module_asks_for_a_version_or_uses_what_is_private() -> None:
    assert len(FILES) > 100
    found = [f"{file.relative_to(SOURCE)}: {name}" for file in FILES for name in questions(file.read_text("utf-8"))]
    assert found == []


# -- torch -------------------------------------------------------------------------------------------------------------


def test_the_switch_for_tf32_is_read_back() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for tf32 in (True, False):
                versions.set_float32_products(tf32=tf32)
                assert versions.float32_products_are_tf32() is tf32
                assert torch.get_float32_matmul_precision() == ("high" if tf32 else "highest")
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_allocators_history_ends_and_is_written_unless_something_is_raised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(torch.cuda.memory, "_record_memory_history", lambda **kw: calls.append(kw))
    monkeypatch.setattr(torch.cuda.memory, "_dump_snapshot", lambda path: calls.append(path))
    with versions.allocation_history(tmp_path / "x", events=7):
        calls.append("step")
    assert calls == [{"max_entries": 7}, "step", str(tmp_path / "x"), {"enabled": None}]
    calls.clear()
    with pytest.raises(MemoryError), versions.allocation_history(tmp_path / "y", events=7):
        raise MemoryError
    assert calls == [{"max_entries": 7}, {"enabled": None}]


def test_a_backward_pass_is_told_from_a_forward_pass() -> None:
    seen = []
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(lambda gradient: seen.append(versions.in_backward()))
    seen.append(versions.in_backward())
    y.sum().backward()
    assert seen == [False, True]


def test_the_innermost_hooks_are_found() -> None:
    assert versions.outer_saved_tensor_hooks() is None
    outer, inner = (saved_tensors_hooks(lambda x, name=name: (name, x), lambda packed: packed[1]) for name in "oi")
    with outer, inner:
        found = versions.outer_saved_tensor_hooks()
    assert found is not None
    assert found[0](3) == ("i", 3)
    assert found[1](("i", 3)) == 3
    assert versions.outer_saved_tensor_hooks() is None


def test_pretended_ranks_are_there_meanwhile_and_send_nothing() -> None:
    with versions.pretended_ranks(5) as group:
        assert group is None
        assert (torch.distributed.get_world_size(), torch.distributed.get_rank()) == (5, 0)
        versions.all_gather(torch.zeros(5), torch.ones(1))
        with versions.pretended_ranks(3) as another:
            assert torch.distributed.get_world_size(another) == 5
    assert not torch.distributed.is_initialized()


# -- Triton ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "interprets"), [(None, False), ("", False), ("0", False), ("1", True)])
def test_interpreting_is_read_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, value: str | None, interprets: bool
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if value is not None:
        monkeypatch.setenv("TRITON_INTERPRET", value)
    assert versions.triton_interprets() is interprets


def test_kernels_are_compiled_with_fused_operations_without_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton 3.9 warns where nobody asks, and 3.10 would compile something else."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget

    from stepbench.kernels.triton import compiling
    from stepbench.kernels.triton.tiles import Tile

    monkeypatch.delenv("TRITON_DEFAULT_FP_FUSION", raising=False)
    asked: list[dict[str, Any]] = []
    compile_ = triton.compile
    monkeypatch.setattr(triton, "compile", lambda *a, **kw: (asked.append(kw["options"]), compile_(*a, **kw))[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiling.compile_variant(
            kernel="forward", architecture="sm_80", head_dim=64, dtype="bfloat16", tile=Tile(64, 64, 4, 2),
            descriptors=False,
        )  # fmt: skip
    assert [options["enable_fp_fusion"] for options in asked] == [True]
    backend = triton.compiler.compiler.make_backend(GPUTarget("cuda", 80, 32))
    assert backend.parse_options({**versions.LAUNCH_OPTIONS}).enable_fp_fusion is True
