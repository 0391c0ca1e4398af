"""Predicted memory of a step: its code runs on fake tensors, which have shapes and no values.

Nothing is computed or allocated, so on any machine a step of the 2.7B size takes some ten seconds and half a GiB. The
prediction sees each tensor that an operator returns, until the last reference to its storage is gone. It does not see
memory that a kernel allocates for itself and frees again, such as the workspace of a matrix product: 8 to 32 MiB for
cuBLAS.

Traps: a build of torch without CUDA can compute with fake `cuda` tensors but not differentiate, so a machine without
CUDA predicts for its own CPU. Tensors must be created in their dtype and initialised without reading values. The
implementation of an optimizer must be given, because its default depends on the type of the parameters. A gradient
scaler reads a value and cannot run.

Source: torch.distributed._tools.mem_tracker counts the same way, by module; the tests compare the two.
"""

from __future__ import annotations

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from stepbench.measure.memory_timeline import Change, Claim, Span, Timeline, WatchedStep, build
from stepbench.versions import FakeTensor, FakeTensorMode, TorchDispatchMode

_DEVICE = torch.ops.prim.device.default
CUDA_BLOCK_BYTES = 512  # the caching allocator rounds up to this


def predict(make: Callable[[], WatchedStep]) -> Timeline:
    """Return the timeline of a step after the first, without running it.

    Args:
        make: builds the step; all its tensors are fake.
    """
    with FakeTensorMode():
        return follow(make)


def follow(make: Callable[[], WatchedStep]) -> Timeline:
    """Return the timeline of a step after the first, from the storages of its tensors.

    Outside a fake mode it runs a real step. Use it for steps whose tensors are freed in other threads, such as Gloo's:
    torch's profiler loses those frees (of 300 broadcasts it reported 300 allocations and 293 frees), and a lost free
    counts until the end.

    Args:
        make: builds the step.
    """
    with _without_collections(), StorageWatcher() as watcher:
        step = make()
        watcher.claim(step.owned())
        watcher.built()
        step.prime()
        watcher.claim(step.owned())
        for name, work in step.phases.items():
            watcher.run(name, work, step.owned)
        return watcher.timeline()


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Disable garbage collection, which would free storages at arbitrary moments and takes a sixth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class StorageWatcher(TorchDispatchMode):
    """Records a storage's allocation at its first tensor and its free after the last; moments count changes."""

    def __init__(self) -> None:
        super().__init__()
        self._changes: list[Change] = []
        self._claims: list[Claim] = []
        self._spans: list[Span] = []
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._built = 0.0

    def built(self) -> None:
        """Mark the moment when the step has been built."""
        self._built = self._now

    def run(self, name: str, work: Callable[[], object], owned: Callable[[], Mapping[str, Iterable[Tensor]]]) -> None:
        """Run a phase and claim the tensors that `owned` returns at its end."""
        start = self._now
        work()
        self._spans.append(Span(name, start, self._now))
        self.claim(owned())

    def claim(self, owned: Mapping[str, Iterable[Tensor]]) -> None:
        """Set the category of the storages of some tensors."""
        for category, tensors in owned.items():
            self._claims.extend(Claim(self._now, tensor.untyped_storage()._cdata, category) for tensor in tensors)

    def timeline(self) -> Timeline:
        """Return the timeline so far.

        Raises:
            ValueError: no phase has run.
        """
        return build(self._changes, self._claims, self._spans, unit="changes", built=self._built)

    @property
    def _now(self) -> float:
        return len(self._changes) + 0.5  # between the last change and the next, which are whole numbers from 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and record the storages of its results."""
        # Two of three calls query a fake tensor's device, most of them from the autograd engine. The tensor itself
        # knows it. This mode is off inside the fake mode's own kernels, where the device would be `meta`.
        if func is _DEVICE and isinstance(args[0], FakeTensor):
            return args[0].fake_device
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self._see(result)
        elif isinstance(result, list | tuple):
            for each in result:
                if isinstance(each, Tensor):
                    self._see(each)
        return result

    def _see(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        name, size_bytes = storage._cdata, storage.nbytes()
        if tensor.device.type == "cuda":
            size_bytes = -(-size_bytes // CUDA_BLOCK_BYTES) * CUDA_BLOCK_BYTES
        if name in self._alive or not size_bytes:
            return
        self._changes.append(Change(len(self._changes) + 1, name, size_bytes))
        self._alive[name] = weakref.ref(storage, lambda _: self._forget(name, size_bytes))

    def _forget(self, name: int, size_bytes: int) -> None:
        self._alive.pop(name, None)
        self._changes.append(Change(len(self._changes) + 1, name, -size_bytes))
