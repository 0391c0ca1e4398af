"""What each rank does for a cell of `encoder_decoder`: train for epochs, and note what it waited for."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepbench.measure.measurement import Setting

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    from stepbench.data.epochs import Batches
    from stepbench.data.shards import ShardSet
    from stepbench.measure.clock import Clock
    from stepbench.parallel.strategies import Replica

LEARNING_RATE = 3e-4
WORKERS = {"cuda": 4}  # per rank; one elsewhere, where workers share the cores with what they feed
LOADER_BATCHES = 200  # at most, when the loader is timed without training
LOADER_EPOCH = 10**6  # of that: an order that no measured epoch has


def strategy(ranks: int) -> str:
    """Return how so many ranks train together."""
    return "bucketed" if ranks > 1 else "none"


def run(*, setting: dict[str, Any], what: dict[str, Any], epochs: dict[str, int]) -> dict[str, Any]:
    """Train for warm-up epochs and for measured ones.

    Args:
        setting: a plain `Setting`, with the preset in its definition and the folder of shards.
        what: the fields of the cell that matter here.
        epochs: how many there are to `warmup`, and how many are `measured`.

    Returns:
        `samples` of this rank, an entry for each measured epoch: `epoch_s`, `data_wait_s` (of it spent waiting for the
        next batch) and `loss_nats` (the mean of its steps); `warmup_epoch_s`. `scalars`, and the `clock`'s name.

    Raises:
        ArithmeticError: a loss is not finite, or the ranks' parameters have drifted apart.
        stepbench.data.shards.ShardError: a shard is missing, cut or altered.
    """
    import torch
    from torch import distributed

    from stepbench.data import shards
    from stepbench.measure import clock, device_load, memory

    given = Setting(**setting)
    replica = _replica(given, what)
    timer = clock.for_device(given.device)
    rate = _loader_rate(given, what, timer)
    load, batches = _loader(given, what)
    found: dict[str, Any] = {"samples": {}, "clock": timer.name}
    found["scalars"] = {"steps_per_epoch": len(batches), "workers": load.num_workers, "loader_bytes_per_s": rate}
    trainer = _Trainer(given, replica, what["precision"], timer)
    position = torch.cuda.current_device() if given.device == "cuda" else 0
    with contextlib.ExitStack() as stack:
        sampled = None
        for number in range(epochs["warmup"] + epochs["measured"]):
            batches.epoch = number
            shards.forget(_files(given, what))
            if number == epochs["warmup"]:
                memory.reset_peak(given.device)
                sampled = stack.enter_context(device_load.DeviceLoad(given.device, position=position))
            distributed.barrier()
            epoch_s, wait_s, loss = trainer.epoch(load)
            measured = number >= epochs["warmup"]
            values = {"epoch_s": epoch_s, "data_wait_s": wait_s, "loss_nats": loss} if measured else {}
            for name, value in (values or {"warmup_epoch_s": epoch_s}).items():
                found["samples"].setdefault(name, []).append(value)
    check_equal(replica.module)
    found["scalars"] |= sampled.scalars() if sampled else {}
    found["scalars"] |= memory.peak_bytes(given.device)
    return found


class _Trainer:
    """Trains for an epoch at a time, in low precision where asked for, with a gradient scaler for fp16."""

    def __init__(self, setting: Setting, replica: Replica, precision: str, timer: Clock) -> None:
        import torch

        from stepbench.models.training import AUTOCAST, set_precision

        set_precision(precision)
        self._device, self._replica, self._timer = setting.device, replica, timer
        self._autocast = AUTOCAST.get(precision)
        self._scaler = torch.amp.GradScaler(setting.device, enabled=precision == "fp16")

    def epoch(self, load: DataLoader[Any]) -> tuple[float, float, float]:
        """Return the seconds of an epoch, those spent waiting for batches, and the mean loss in nats.

        Raises:
            ArithmeticError: the loss is not finite.
        """
        import torch

        from stepbench.data import epochs

        waited, losses = 0.0, []
        self._timer.synchronize()
        start = self._timer.now()
        batches = epochs.read(load)
        for _ in range(len(load)):
            asked = self._timer.now()
            batch = next(batches)
            waited += self._timer.now() - asked
            losses.append(self._step(batch))
        self._timer.synchronize()
        seconds = self._timer.now() - start
        loss = float(torch.stack(losses).mean())
        if not torch.isfinite(torch.tensor(loss)):
            raise ArithmeticError(f"the mean loss of an epoch must be finite, got {loss}")
        return seconds, waited, loss

    def _step(self, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        import torch

        from stepbench.models.decoder import next_token_loss

        source, given, wanted = (part.to(self._device, non_blocking=True) for part in batch)
        self._replica.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self._device, dtype=self._autocast, enabled=self._autocast is not None):
            loss = next_token_loss(self._replica.module(source, given), wanted)
        self._scaler.scale(loss).backward()
        self._replica.finish_gradient_synchronization()
        self._scaler.step(self._replica.optimizer)
        self._scaler.update()
        return loss.detach()


def _replica(setting: Setting, what: dict[str, Any]) -> Replica:
    import torch
    from torch import distributed

    from stepbench.kernels.api import bind
    from stepbench.models.encoder_decoder import EncoderDecoder
    from stepbench.models.presets import Preset
    from stepbench.parallel.strategies import parallelize

    torch.manual_seed(setting.protocol["seed"])
    model = EncoderDecoder(
        Preset(**setting.definition["preset"]), attention=bind(what["attention"]), device=setting.device
    )
    name = strategy(distributed.get_world_size())
    return parallelize(name, model, torch.optim.AdamW, {"lr": LEARNING_RATE})


def _loader(setting: Setting, what: dict[str, Any], *, at_most: int | None = None) -> tuple[DataLoader[Any], Batches]:
    """Return what gives this rank its batches, and which they are: an epoch's, or so many at most."""
    from torch import distributed

    from stepbench.data import epochs, shards

    definition = _definition(setting, what)
    source = shards.on_disk(definition, files) if (files := _files(setting, what)) else shards.in_memory(definition)
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    whole = definition.samples // (what["batch"] * ranks)
    steps = what["steps"] if at_most is None else min(at_most, whole)
    batches = epochs.Batches(
        definition.samples, batch=what["batch"], rank=rank, ranks=ranks, seed=setting.protocol["seed"], steps=steps
    )
    load = epochs.loader(
        epochs.Pairs(source, context=what["context"]),
        batches,
        workers=WORKERS.get(setting.device, 1),
        pinned=setting.device == "cuda",
    )
    return load, batches


def _definition(setting: Setting, what: dict[str, Any]) -> ShardSet:
    from stepbench.data.shards import ShardSet

    vocabulary, seed = setting.definition["preset"]["vocabulary"], setting.protocol["seed"]
    return ShardSet(what["megabytes"], what["context"], vocabulary, seed)


def _files(setting: Setting, what: dict[str, Any]) -> list[Path]:
    """Return the shards that are read; none if the data is in memory. The measuring process has checked them."""
    if what["data"] != "disk":
        return []
    counts = _definition(setting, what).shard_samples
    return [Path(str(setting.shards), f"shard_{number:04}.bin") for number in range(len(counts))]


def _loader_rate(setting: Setting, what: dict[str, Any], timer: Clock) -> float | None:
    """Return how many bytes of samples per second the loader gives this rank when nobody trains, once it has begun."""
    from torch import distributed

    from stepbench.data import epochs, shards

    load, batches = _loader(setting, what, at_most=LOADER_BATCHES)
    # Starting the workers is not reading, and what they had ready when the clock starts took no time of it.
    ready = 1 + load.num_workers * epochs.PREFETCHED
    if len(batches) <= ready:
        return None
    batches.epoch = LOADER_EPOCH
    shards.forget(_files(setting, what))
    distributed.barrier()
    given = epochs.read(load)
    for _ in range(ready):
        next(given)
    start = timer.now()
    for _ in given:
        pass
    seconds = timer.now() - start
    return (len(batches) - ready) * what["batch"] * _definition(setting, what).sample_bytes / seconds


def check_equal(module: nn.Module) -> None:
    """Raise if the ranks' parameters differ after training, which they must not by a single bit."""
    import torch
    from torch import distributed

    sums = torch.stack([parameter.detach().double().sum() for parameter in module.parameters()])
    everyone = [torch.empty_like(sums) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyone, sums)
    if not all(torch.equal(each, sums) for each in everyone):
        raise ArithmeticError("after the last epoch all ranks must hold equal parameters, and they differ")
