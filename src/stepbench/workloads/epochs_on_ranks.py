"""What each rank does for a cell of `encoder_decoder`: train for epochs, and note what it waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.utils.data import DataLoader

from stepbench.data import disk_shards, epochs, shards
from stepbench.data.epochs import Batches
from stepbench.kernels.api import bind
from stepbench.measure import clock, device_load, memory, paging
from stepbench.measure.clock import Clock
from stepbench.measure.devices import KINDS
from stepbench.measure.measurement import Setting, WrongResultError
from stepbench.measure.paging import Paging
from stepbench.models.decoder import next_token_loss
from stepbench.models.encoder_decoder import EncoderDecoder
from stepbench.models.precision import AUTOCAST, set_precision
from stepbench.models.presets import Preset
from stepbench.parallel.replica import Replica
from stepbench.parallel.strategies import parallelize

LEARNING_RATE = 3e-4
LOADER_BATCHES = 200  # at most, when the loader is timed without training
LOADER_EPOCH = 10**6  # of that: an order that no measured epoch has


def run(*, setting: dict[str, Any], what: dict[str, Any], epochs: dict[str, int]) -> dict[str, Any]:
    """Train for warm-up epochs and for measured ones.

    Args:
        setting: a plain `Setting`, with the preset in its definition and the folder of shards.
        what: the fields of the cell that matter here.
        epochs: how many there are to `warmup`, and how many are `measured`.

    Returns:
        `samples` of this rank, an entry for each measured epoch: `epoch_s`, `data_wait_s` (of it spent waiting for the
        next batch) and `loss_nats` (the mean of its steps), page faults and system time; `warmup_epoch_s`. `scalars`,
        and the `clock`'s name.

    Raises:
        WrongResultError: a loss is not finite, or the ranks' parameters have drifted apart.
        stepbench.data.shards.ShardError: a shard is missing, cut or altered.
    """
    given = Setting(**setting)
    replica = _replica(given, what)
    timer = clock.for_device(given.device)
    data = _Data(given, what)
    rate = data.rate(timer)
    load, batches = data.loader()
    scalars = {"steps_per_epoch": len(batches), "workers": load.num_workers, "loader_bytes_per_s": rate}
    trainer = _Trainer(given, replica, what["precision"], timer)
    position = torch.accelerator.current_device_index() if KINDS[given.device].is_gpu else 0

    def epoch(number: int) -> tuple[float, float, float]:
        batches.epoch = number
        data.forget()
        distributed.barrier()
        before = paging.read()
        found = trainer.epoch(load)
        paged.add(before, paging.read())
        return found

    paged = Paging()
    first = [epoch(number) for number in range(epochs["warmup"])]
    memory.reset_peak(given.device)
    paged, calls = Paging(), memory.AllocatorCalls(given.device)
    calls.start()
    with device_load.DeviceLoad(given.device, position=position) as sampled:
        measured = [epoch(epochs["warmup"] + number) for number in range(epochs["measured"])]
    called = calls.scalars()
    check_equal(replica.module)
    samples = dict(zip(("epoch_s", "data_wait_s", "loss_nats"), map(list, zip(*measured, strict=True)), strict=True))
    return {
        "samples": {
            **samples,
            **paged.samples("epoch"),
            "warmup_epoch_s": [seconds for seconds, _, _ in first],
        },
        "scalars": {**scalars, **called, **sampled.scalars(), **memory.peak_bytes(given.device)},
        "clock": timer.name,
    }


class _Trainer:
    """Trains for an epoch at a time, in low precision where asked for, with a gradient scaler for fp16."""

    def __init__(self, setting: Setting, replica: Replica, precision: str, timer: Clock) -> None:
        set_precision(precision)
        self._device, self._replica, self._timer = setting.device, replica, timer
        self._autocast = AUTOCAST.get(precision)
        self._scaler = torch.amp.GradScaler(setting.device, enabled=precision == "fp16")

    def epoch(self, load: DataLoader[Any]) -> tuple[float, float, float]:
        """Return the seconds of an epoch, those spent waiting for batches, and the mean loss in nats.

        Raises:
            WrongResultError: the loss is not finite.
        """
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
            raise WrongResultError(f"the mean loss of an epoch must be finite, got {loss}")
        return seconds, waited, loss

    def _step(self, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
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
    torch.manual_seed(setting.protocol["seed"])
    model = EncoderDecoder(
        Preset(**setting.definition["preset"]), attention=bind(what["attention"]), device=setting.device
    )
    return parallelize(what["strategy"], model, torch.optim.AdamW, {"lr": LEARNING_RATE, "foreach": True})


class _Data:
    """This rank's view of the data set, in memory or on disk; the measuring process has checked the shards."""

    def __init__(self, setting: Setting, what: dict[str, Any]) -> None:
        preset, self._seed = setting.definition["preset"], setting.protocol["seed"]
        self._set = shards.ShardSet(what["megabytes"], what["context"], preset["vocabulary"], self._seed)
        self._files = shards.files(self._set, Path(str(setting.shards))) if what["data"] == "disk" else []
        source = disk_shards.on_disk(self._set, self._files) if self._files else shards.in_memory(self._set)
        self._pairs = epochs.Pairs(source, context=what["context"])
        self._what, self._device = what, setting.device

    def loader(self, *, at_most: int | None = None) -> tuple[DataLoader[Any], Batches]:
        """Return what gives this rank its batches, and which they are: those of an epoch, or at most `steps`."""
        batch, rank, ranks = self._what["batch"], distributed.get_rank(), distributed.get_world_size()
        whole = self._set.samples // (batch * ranks)
        steps = self._what["steps"] if at_most is None else min(at_most, whole)
        batches = epochs.Batches(self._set.samples, batch=batch, rank=rank, ranks=ranks, seed=self._seed, steps=steps)
        workers = KINDS[self._device].workers
        return epochs.loader(self._pairs, batches, workers=workers, pinned=KINDS[self._device].is_gpu), batches

    def forget(self) -> None:
        """Have the next epoch read the disk, if there is one."""
        disk_shards.forget(self._files)

    def rate(self, timer: Clock) -> float | None:
        """Return how many bytes of samples per second the loader gives this rank when nobody trains."""
        load, batches = self.loader(at_most=LOADER_BATCHES)
        # Starting the workers is not reading, and what they had ready when the clock starts took no time of it.
        ready = 1 + load.num_workers * epochs.PREFETCHED
        if len(batches) <= ready:
            return None
        batches.epoch = LOADER_EPOCH
        self.forget()
        distributed.barrier()
        given = epochs.read(load)
        for _ in range(ready):
            next(given)
        start = timer.now()
        for _ in given:
            pass
        return (len(batches) - ready) * self._what["batch"] * self._set.sample_bytes / (timer.now() - start)


def check_equal(module: nn.Module) -> None:
    """Raise if the ranks' parameters differ after training, which they must not by a single bit."""
    sums = torch.stack([parameter.detach().double().sum() for parameter in module.parameters()])
    everyone = [torch.empty_like(sums) for _ in range(distributed.get_world_size())]
    distributed.all_gather(everyone, sums)
    if not all(torch.equal(each, sums) for each in everyone):
        raise WrongResultError("after the last epoch all ranks must hold equal parameters, and they differ")
