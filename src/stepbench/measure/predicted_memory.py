"""What a step would allocate, asked of its own code: it runs on fake tensors, which have shapes and no values.

Nothing is computed and nothing is allocated, so that on any machine a step of the 2.7B size takes some ten seconds and
half a GiB. What the prediction sees is each tensor that an operator returns, until the last reference to its storage is
gone. What it does not see is what a kernel allocates for itself and frees again, such as the workspace of a matrix
product: cuBLAS takes 8 to 32 MiB.

Traps: a build of torch without CUDA can compute with fake `cuda` tensors but not differentiate, so that a machine
without CUDA predicts its own CPU. Tensors must be created in their dtype and initialised without reading values. An
optimizer must be told its implementation, because its own choice looks at the type of the parameters. A gradient scaler
reads a value and cannot run.

Source: torch.distributed._tools.mem_tracker counts the same way, by module; the tests hold the two against each other.
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
CUDA_BLOCK_BYTES = 512  # what the caching allocator rounds up to


def predict(make: Callable[[], WatchedStep]) -> Timeline:
    """Return the timeline of a step after the first, without running it.

    Args:
        make: builds the step; everything that it creates is fake.
    """
    with FakeTensorMode():
        return follow(make)


def follow(make: Callable[[], WatchedStep]) -> Timeline:
    """Return the timeline of a step after the first, from the storages of its tensors; real ones outside of fake modes.

    For real steps whose tensors other threads let go of, such as those of Gloo: torch's profiler loses what is freed
    there (of 300 broadcasts it reported 300 allocations and 293 frees), and what is lost counts until the end.
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
    """Let no search for garbage decide when a storage goes; and they took a sixth of the largest predictions' time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


class StorageWatcher(TorchDispatchMode):
    """Sees each storage come with the first tensor on it, and go with the last; a moment is a count of changes."""

    def __init__(self) -> None:
        super().__init__()
        self._changes: list[Change] = []
        self._claims: list[Claim] = []
        self._spans: list[Span] = []
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._built = 0.0

    def built(self) -> None:
        """Note that the step has been built."""
        self._built = self._now

    def run(self, name: str, work: Callable[[], object], owned: Callable[[], Mapping[str, Iterable[Tensor]]]) -> None:
        """Run a phase, and ask at its end who owns what."""
        start = self._now
        work()
        self._spans.append(Span(name, start, self._now))
        self.claim(owned())

    def claim(self, owned: Mapping[str, Iterable[Tensor]]) -> None:
        """Note what the storages of some tensors are for."""
        for category, tensors in owned.items():
            self._claims.extend(Claim(self._now, tensor.untyped_storage()._cdata, category) for tensor in tensors)

    def timeline(self) -> Timeline:
        """Return what was seen so far.

        Raises:
            ValueError: no phase was run.
        """
        return build(self._changes, self._claims, self._spans, unit="changes", built=self._built)

    @property
    def _now(self) -> float:
        return len(self._changes) + 0.5  # between the last change and the next, which are whole numbers from 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operator and look at what it returns."""
        # Two of three calls ask a fake tensor for its device, most of them from the autograd engine. The tensor
        # knows it; inside the fake mode's own kernels, where it would be `meta`, this mode is off.
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
