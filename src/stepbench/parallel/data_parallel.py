"""What all data-parallel strategies share: equal replicas, and one gradient that is the mean over the ranks.

Each rank holds the whole module and its own part of the batch. The strategies differ only in when and in how many
messages the gradients travel:

    naive       after backward, one message for each parameter, one after the other
    flat        after backward, all gradients in one message
    overlapped  during backward, one message for each parameter
    bucketed    during backward, in messages of a chosen size

A parameter that got no gradient on one rank counts as zero there. One that got none on any rank has none afterwards, as
in a single process: an optimizer must skip it, and zeros would decay it and move its momentum. For that the ranks tell
each other what they have.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import Parameter

from stepbench.parallel.bucket import set_anywhere
from stepbench.parallel.communicator import Communicator
from stepbench.parallel.replica import Group, Recipe, Replica, Strategy, Synchronizes, with_plain_optimizer
from stepbench.parallel.traffic import Traffic
from stepbench.versions import FakeTensor


class DataParallel(Synchronizes, nn.Module):
    """Replicas that start equal; what happens to their gradients is up to the subclass.

    By itself it synchronises nothing: the strategy `none`, whose step is the others' step with communication removed.
    To be used as the others:

        replica = BucketedDDP(module, bucket_mib=25)
        loss(replica(batch)).backward()
        replica.finish_gradient_synchronization()
        optimizer.step()

    Args:
        module: any module, already on its device and in its dtype. Its parameters and buffers are overwritten with
            those of rank 0. Parameters that do not require a gradient now are never synchronised.
        group: the process group, or None for all ranks.

    Raises:
        ValueError: the ranks hold different modules, or parameters on several devices.
    """

    def __init__(self, module: nn.Module, *, group: dist.ProcessGroup | None = None) -> None:
        super().__init__()
        self.module = module
        self.communicator = Communicator(device_of(module), group)
        start_equal(module, self.communicator)
        named = list(module.named_parameters())
        self._trainable = [parameter for _, parameter in named if parameter.requires_grad]
        self._frozen = {name: parameter for name, parameter in named if not parameter.requires_grad}

    @property
    def traffic(self) -> Traffic:
        """What this strategy communicated, and how long it waited."""
        return self.communicator.traffic

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Call the module."""
        return self.module(*args, **kwargs)

    def finish_gradient_synchronization(self) -> None:
        """Return when every gradient is the mean over the ranks; call it on all ranks after the backward pass.

        Raises:
            RuntimeError: called inside `no_sync()`, or a parameter was unfrozen after it had been wrapped.
        """
        self._refuse_inside_no_sync()
        refuse_unfrozen(self._frozen)
        self._finish()

    def _finish(self) -> None:
        """Communicate what is left to communicate, and wait for all of it."""


class LaunchOrder:
    """Lets numbered messages leave as 0, 1, 2, …, each as soon as it and all before it are ready.

    Collectives have no address: the first one that rank 0 starts meets the first one that rank 1 starts. So the ranks
    must start theirs in the same order, although their gradients may become ready in different ones, a rank may use
    another branch of the module, or a parameter may get no gradient at all.

    Args:
        count: how many messages there are in a step.
    """

    def __init__(self, count: int) -> None:
        self._ready = [False] * count
        self._next = 0

    def is_ready(self, index: int) -> bool:
        """Return whether a message has been marked in this step."""
        return self._ready[index]

    def mark(self, index: int) -> Iterator[int]:
        """Note that a message is ready, and yield those that leave now, in order."""
        self._ready[index] = True
        while self._next < len(self._ready) and self._ready[self._next]:
            self._next += 1
            yield self._next - 1

    def rest(self) -> Iterator[int]:
        """Yield those that have not left, in order, ready or not, and begin the next step."""
        first, self._next = self._next, 0
        self._ready = [False] * len(self._ready)
        yield from range(first, len(self._ready))


def when_accumulated(parameter: Parameter, method: Callable[..., None], *arguments: Any) -> None:
    """Call a bound method each time after autograd has added to a parameter's `.grad`, as long as its object lives.

    The object is not kept alive. A tensor's hooks are held by C++, where Python's garbage collector does not look: a
    wrapper whose parameters' hooks refer to it would never be freed, nor would its buckets and its module.

    Args:
        parameter: a leaf that requires a gradient.
        method: what to call.
        *arguments: what to call it with.
    """
    weak = weakref.WeakMethod(method)

    def hook(_: Tensor) -> None:
        alive = weak()
        if alive is not None:
            alive(*arguments)

    parameter.register_post_accumulate_grad_hook(hook)


def present_anywhere(present: Sequence[bool], communicator: Communicator) -> list[bool]:
    """Return for each flag whether it is set on any rank; one small message."""
    if not present:
        return []
    device = communicator.traffic.device
    # Copying flags to a CUDA device makes the host wait, as reading them does; so only where something is missing.
    flags = torch.ones(len(present), dtype=torch.int32, device=device)
    if not all(present):
        flags = torch.tensor(present, dtype=torch.int32, device=device)
    communicator.all_reduce(flags).wait()
    return set_anywhere(flags, present)


def refuse_unfrozen(frozen: Mapping[str, Parameter]) -> None:
    """Raise if a parameter requires a gradient that did not when it was wrapped.

    Raises:
        RuntimeError: one does; nobody would synchronise it.
    """
    for name, parameter in frozen.items():
        if parameter.requires_grad:
            raise RuntimeError(f"`{name}` must be unfrozen before the module is wrapped, or nobody synchronises it")


def device_of(module: nn.Module) -> torch.device:
    """Return the one device that holds a module's parameters and buffers.

    Raises:
        ValueError: there are none, or they are on several devices.
    """
    devices = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    if len(devices) != 1:
        found = ", ".join(sorted(map(str, devices))) or "no parameters"
        raise ValueError(f"`module` must have parameters, all on one device, got {found}")
    return devices.pop()


@torch.no_grad()
def start_equal(module: nn.Module, communicator: Communicator) -> None:
    """Overwrite the parameters and buffers of all ranks with those of rank 0.

    Raises:
        ValueError: the ranks' parameters and buffers differ in name, shape, dtype or whether they are trained; said on
            every rank, because to start would be to hang.
    """
    tensors = [*module.named_parameters(), *module.named_buffers()]
    described = [f"{name} {tuple(each.shape)} {each.dtype} {each.requires_grad}" for name, each in tensors]
    digest = hashlib.sha256("\n".join(described).encode()).digest()
    mine = torch.tensor(list(digest), dtype=torch.uint8, device=communicator.traffic.device)
    everyones = torch.zeros(communicator.size, len(digest), dtype=torch.uint8, device=mine.device)
    everyones[communicator.rank] = mine
    communicator.all_gather(everyones.view(-1)).wait()
    # A fake tensor, on which memory is predicted without other ranks, has no values to differ in.
    seen = [] if isinstance(everyones, FakeTensor) else everyones.tolist()
    if different := [rank for rank, each in enumerate(seen) if each != seen[0]]:
        raise ValueError(
            f"`module` must have the same parameters on every rank, got others on rank {different[0]} than on 0"
        )
    for _, tensor in tensors:
        broadcast_into(tensor.detach(), communicator)


def broadcast_into(tensor: Tensor, communicator: Communicator) -> None:
    """Overwrite a tensor of any layout with that of rank 0."""
    if tensor.numel() == 0:
        return
    dense = tensor.contiguous()
    communicator.broadcast(dense, root=0).wait()
    if dense is not tensor:
        tensor.copy_(dense)


def _build(module: nn.Module, recipe: Recipe, group: Group) -> Replica:
    return with_plain_optimizer(DataParallel(module, group=group), recipe)


STRATEGY = Strategy(_build)
