"""What each rank does for a cell of `collectives`: prove the operation right, then time it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stepbench.measure.devices import KINDS
from stepbench.measure.measurement import Setting, WrongResultError

if TYPE_CHECKING:
    import torch

    from stepbench.measure.clock import Clock

ROUNDS = 3  # times the protocol's steps, because a collective is short and its time scatters
MIN_REGION_S = 2e-3  # of the calls that are timed as one
MAX_LOOPS = 256


def timed(*, setting: dict[str, Any], operation: str, payload_bytes: int) -> dict[str, Any]:
    """Return `samples` of this rank, `call_s`: one call of the operation on float32, begun by all ranks together.

    Raises:
        WrongResultError: the operation does not give what it should.
    """
    import torch
    from torch import distributed

    from stepbench.measure import clock, timing
    from stepbench.measure.paging import Paging
    from stepbench.parallel.communicator import Communicator

    given = Setting(**setting)
    on_gpu = KINDS[given.device].is_gpu
    device = torch.device(given.device, *((torch.accelerator.current_device_index(),) if on_gpu else ()))
    communicator = Communicator(device)
    world, rank = communicator.size, communicator.rank
    length = max(1, payload_bytes // 4 // world) * world
    full = torch.full((length,), float(rank + 1), device=device)
    shard = torch.empty(length // world, device=device)
    works = {
        "all_reduce": lambda: communicator.all_reduce(full).wait(),
        "broadcast": lambda: communicator.broadcast(full, root=0).wait(),
        "all_gather": lambda: communicator.all_gather(full).wait(),
        "reduce_scatter": lambda: communicator.reduce_scatter(shard, full).wait(),
    }
    work = works[operation]
    work()
    _check(operation, full, shard, world)
    full.fill_(0.0)  # sums of sums would overflow, and infinities are no data
    timer = clock.for_device(given.device)
    for _ in range(given.protocol["warmup_steps"]):
        work()
    loops = _agreed_loops(work, timer, device)
    samples, paged = [], Paging(calls=loops)
    for _ in range(ROUNDS * given.protocol["measured_steps"]):
        distributed.barrier()
        samples += timing.time_loops(work, clock=timer, repeats=1, loops=loops, paged=paged)
        communicator.traffic.reset()
    return {
        "samples": {"call_s": samples, **paged.samples("call")},
        "scalars": {"payload_bytes": full.nbytes, "loops": loops},
    }


def _agreed_loops(work: Callable[[], object], timer: Clock, device: torch.device) -> int:
    """Return how many calls make a region of at least `MIN_REGION_S` on the slowest rank, the same on all ranks."""
    import torch
    from torch import distributed

    from stepbench.measure import timing

    loops = 1
    while loops < MAX_LOOPS:
        region = torch.tensor([timing.time_loops(work, clock=timer, repeats=1, loops=loops)[0] * loops], device=device)
        distributed.all_reduce(region, distributed.ReduceOp.MAX)
        if float(region) >= MIN_REGION_S:
            break
        loops *= 2
    return loops


def _check(operation: str, full: Any, shard: Any, world: int) -> None:
    """Hold the result of one call against what it must be: rank r began with r + 1 everywhere."""
    import torch

    total = world * (world + 1) / 2
    slices = torch.arange(1.0, world + 1, device=full.device).repeat_interleave(full.numel() // world)
    expected = {
        "all_reduce": (full, torch.full_like(full, total)),
        "broadcast": (full, torch.ones_like(full)),
        "all_gather": (full, slices),
        "reduce_scatter": (shard, torch.full_like(shard, total)),
    }
    found, wanted = expected[operation]
    if not torch.equal(found, wanted):
        raise WrongResultError(f"{operation} must give {wanted[:4].tolist()} …, got {found[:4].tolist()} …")
