"""What differs between the versions of torch and Triton that are supported, or is private to them, in one place.

Written for torch 2.11 to 2.15 and Triton 3.6 to 3.9, with Triton 3.10's change of a default met in advance. A test
refuses private names of torch and questions about a version anywhere else. Triton is imported late: macOS has none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

__all__ = [
    "FP_FUSION",
    "HAS_LINEAR_CROSS_ENTROPY",
    "LAUNCH_OPTIONS",
    "FakeTensor",
    "FakeTensorMode",
    "TorchDispatchMode",
    "all_gather",
    "allocation_history",
    "allocator_calls",
    "cpu_has_bf16_units",
    "float32_products_are_tf32",
    "foreach_norm",
    "in_backward",
    "is_installed_triton",
    "linear_cross_entropy",
    "modules_convert",
    "outer_saved_tensor_hooks",
    "plain_tensors",
    "pretended_ranks",
    "real_tensors",
    "reduce_scatter",
    "set_float32_products",
    "tensor_descriptor_type",
    "tensor_memory_columns",
    "tensors_are_fake",
    "tree_leaves",
    "tree_map",
    "triton_interprets",
]

# A multiplication and an addition in one instruction, with one rounding. Triton 3.10 stops doing so unless asked, and
# 3.9 warns of it; to be asked each time makes the kernels compute the same in every version.
FP_FUSION = True
LAUNCH_OPTIONS = {"enable_fp_fusion": FP_FUSION}


# -- torch -------------------------------------------------------------------------------------------------------------

# torch 2.13 renamed them and warns at each call by the old name; 2.11 does not know the new one.
all_gather: Callable[..., Any] = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
reduce_scatter: Callable[..., Any] = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


# A context inside of a FakeTensorMode in which tensors are real.
real_tensors: Callable[[], contextlib.AbstractContextManager[Any]] = unset_fake_temporarily
# What torch.nn.utils takes norms with where all tensors are on a CUDA device or the caller asks for it.
foreach_norm: Callable[..., Any] = torch._foreach_norm
# A context in which functions take a subclass of Tensor for a Tensor.
plain_tensors: Callable[[], contextlib.AbstractContextManager[None]] = torch._C.DisableTorchFunctionSubclass

# torch 2.13 has them.
HAS_LINEAR_CROSS_ENTROPY = hasattr(torch.nn.functional, "linear_cross_entropy")


def linear_cross_entropy(x: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, *, ignored: int) -> torch.Tensor:
    """Return torch's mean cross-entropy of x wᵀ, computed chunk by chunk; see `HAS_LINEAR_CROSS_ENTROPY`."""
    # Under torch.compile a second backward pass cannot be refused, which torch says in a warning unless it is allowed.
    options = torch.nn.LinearCrossEntropyOptions(allow_retain_graph=torch.compiler.is_compiling())
    return torch.nn.functional.linear_cross_entropy(x, weight, targets, ignore_index=ignored, options=options)


def cpu_has_bf16_units() -> bool:
    """Tell whether this CPU multiplies bfloat16 by instructions of its own, and not by those of float32."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


@contextlib.contextmanager
def pretended_ranks(count: int) -> Iterator[dist.ProcessGroup | None]:
    """Yield a process group of ranks that are not there: nothing that is sent arrives anywhere.

    Args:
        count: of the ranks, of which this process is the first, where torch.distributed has not been started; the
            default group, `None`, pretends then. Where it has, a new group of all its ranks does.
    """
    from torch.testing._internal.distributed.fake_pg import FakeStore  # late: it brings torch.testing, and the backend

    if dist.is_initialized():
        yield dist.new_group(backend="fake")
        return
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=count)
    try:
        yield None
    finally:
        dist.destroy_process_group()


def set_float32_products(*, tf32: bool) -> None:
    """Have float32 matrix products computed in TF32 or in float32; the whole process is affected.

    torch has a newer switch for each backend. Mixing the two is an error, and `torch.compile` reads this one.
    """
    torch.set_float32_matmul_precision("high" if tf32 else "highest")


def float32_products_are_tf32() -> bool:
    """Tell whether CUDA's float32 matrix products may be computed in TF32, by whichever switch it was allowed."""
    return bool(torch.backends.cuda.matmul.fp32_precision == "tf32")


def spin_on_cuda(cycles: int) -> None:
    """Launch a kernel that keeps the current stream of the current CUDA device busy for a number of cycles."""
    torch.cuda._sleep(cycles)


def allocator_calls() -> dict[str, int]:
    """Return what CUDA's caching allocator has counted so far: `allocator_retries` and `device_allocations`.

    The latter are calls of cudaMalloc; where a version of torch does not count them, the segments that they gave.
    """
    found = torch.cuda.memory_stats()
    allocations = found.get("num_device_alloc", found.get("segment.all.allocated", 0))
    return {"allocator_retries": found.get("num_alloc_retries", 0), "device_allocations": allocations}


@contextlib.contextmanager
def allocation_history(path: Path, *, events: int) -> Iterator[None]:
    """Have CUDA's caching allocator keep its history meanwhile, and write it to `path` unless something is raised.

    Args:
        path: of the snapshot, a pickle for torch's viewer.
        events: how many the allocator keeps at most.
    """
    torch.cuda.memory._record_memory_history(max_entries=events)
    try:
        yield
        torch.cuda.memory._dump_snapshot(str(path))
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)


def tensors_are_fake() -> bool:
    """Tell whether tensors that are created from now on are fake: shapes without values."""
    return detect_fake_mode() is not None


@contextlib.contextmanager
def modules_convert() -> Iterator[None]:
    """Let `Module.to` and its like convert fake parameters, ties kept.

    torch swaps the old tensor's content with the new one's then, which it refuses where something refers to one of them
    weakly, and whether the fake mode does so is chance.
    """
    made: dict[tuple[torch.Tensor, torch.dtype, torch.device], torch.Tensor] = {}

    def converted(found: torch.Tensor, fn: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        applied = fn(found.detach())
        if (applied.dtype, applied.device) == (found.dtype, found.device):
            return found
        if isinstance(found, torch.nn.Parameter):
            applied = torch.nn.Parameter(applied, requires_grad=found.requires_grad)
        return made.setdefault((found, applied.dtype, applied.device), applied)

    def apply(self: Any, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        for child in self.children() if recurse else ():
            child._apply(fn)
        for held in (self._parameters, self._buffers):
            for name, found in held.items():
                if found is not None:
                    held[name] = converted(found, fn)
        return self

    before = torch.nn.Module._apply
    torch.nn.Module._apply = apply  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.Module._apply = before  # type: ignore[method-assign]


def in_backward() -> bool:
    """Tell whether this thread runs inside a backward pass, as what is computed again there does."""
    return bool(torch._C._current_graph_task_id() != -1)


def outer_saved_tensor_hooks() -> tuple[Callable[[Any], Any], Callable[[Any], Any]] | None:
    """Return pack and unpack of the innermost `saved_tensors_hooks` that holds here; None outside of all."""
    hooks: tuple[Callable[[Any], Any], Callable[[Any], Any]] | None
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(False)
    return hooks


# -- Triton ------------------------------------------------------------------------------------------------------------


def triton_interprets() -> bool:
    """Tell whether kernels that are decorated from now on are interpreted, by TRITON_INTERPRET in the environment."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


def is_installed_triton(version: object) -> bool:
    """Tell whether a version is that of the installed Triton, which then compiles a kernel to the same code."""
    import triton

    return bool(version == triton.__version__)


def tensor_descriptor_type() -> type[Any]:
    """Return the class of tensor descriptors that are made on the host: tensor, shape, strides, shape of a block."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return TensorDescriptor


def tensor_memory_columns(compiled: Any) -> int:
    """Return the columns of tensor memory that a compiled kernel allocates; 0 before sm_100, which has none."""
    return getattr(compiled.metadata, "tmem_size", None) or 0
