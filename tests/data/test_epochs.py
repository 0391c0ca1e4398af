"""An epoch: every sample once, over ranks without overlap, in another order each time; read by real workers."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.processes import alive, gone

from stepbench.data import disk_shards, epochs, shards
from stepbench.data.epochs import Batches, Pairs, loader
from stepbench.data.shards import ShardError, ShardSet

SET = ShardSet(megabytes=1, context=31, vocabulary=300, seed=7)


@pytest.mark.parametrize("samples", [1, 511, 512, 513, 512 * 64, 512 * 64 + 1, 100_003])
def test_an_order_has_each_sample_once_and_every_epoch_another(samples: int) -> None:
    orders = [
        [int(index) for window in epochs.order(samples, seed=3, epoch=epoch) for index in window] for epoch in (0, 1, 0)
    ]
    assert sorted(orders[0]) == list(range(samples))
    assert orders[0] == orders[2]
    assert samples < 3 or orders[0] != orders[1]


def test_a_window_reads_near_by_and_no_batch_is_a_block() -> None:
    """So that a disk is read in runs, and samples that lie side by side do not always meet."""
    window = next(epochs.order(10**6, seed=0, epoch=0))
    blocks = {int(index) // epochs.BLOCK_SAMPLES for index in window}
    assert len(blocks) == epochs.WINDOW_BLOCKS
    assert len({int(index) // epochs.BLOCK_SAMPLES for index in window[:64]}) > 20


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("steps", [None, 5])
def test_ranks_share_an_epoch_without_overlap(ranks: int, steps: int | None) -> None:
    of = [Batches(1000, batch=7, rank=rank, ranks=ranks, seed=1, steps=steps) for rank in range(ranks)]
    found = [list(each) for each in of]
    count = steps or 1000 // (7 * ranks)
    assert [len(each) for each in found] == [len(each) for each in of] == [count] * ranks
    everything = [index for each in found for batch in each for index in batch]
    assert len(set(everything)) == len(everything) == count * 7 * ranks
    assert all(len(batch) == 7 for each in found for batch in each)


def test_ranks_together_train_on_what_one_rank_would() -> None:
    alone = list(Batches(1000, batch=8, rank=0, ranks=1, seed=1))
    halves = [list(Batches(1000, batch=4, rank=rank, ranks=2, seed=1)) for rank in (0, 1)]
    assert [first + second for first, second in zip(*halves, strict=True)] == alone


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="must hold 80 samples for 10 steps of 2 ranks with 4 each, got 79"):
        Batches(79, batch=4, rank=0, ranks=2, seed=0, steps=10)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_the_same_from_memory_and_from_disk(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 300_000)
    shards.write(SET, tmp_path)
    sources = [shards.in_memory(SET), disk_shards.on_disk(SET, shards.check(SET, tmp_path))]
    rows = torch.cat([torch.from_numpy(shard.astype("int64")) for shard in sources[0]])  # type: ignore[union-attr]
    found = []
    for source in sources:
        batches = Batches(SET.samples, batch=16, rank=1, ranks=2, seed=5, steps=9)
        load = loader(Pairs(source, context=31), batches, workers=workers, pinned=False)
        for epoch in (0, 1):
            batches.epoch = epoch
            found.append(list(load))
            for indices, (inputs, given, wanted) in zip(batches, found[-1], strict=True):
                assert torch.equal(inputs, rows[indices, :31])
                assert torch.equal(given, rows[indices, 31:62])
                assert torch.equal(wanted, rows[indices, 32:])
                assert inputs.dtype == torch.int64
                assert all(part.is_contiguous() for part in (inputs, given, wanted))
    for one, other in zip(found[0], found[2], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert not torch.equal(found[0][0][0], found[1][0][0])


def cut(file: Path) -> None:
    os.truncate(file, 40_000)


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_shard_that_goes_bad_while_it_is_read_is_named_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    shards.write(SET, tmp_path)
    source = disk_shards.on_disk(SET, shards.check(SET, tmp_path))
    damage(tmp_path / "shard_0000.bin")
    batches = Batches(SET.samples, batch=16, rank=0, ranks=1, seed=5)
    with pytest.raises(ShardError, match=r"shard_0000\.bin") as caught:
        list(epochs.read(loader(Pairs(source, context=31), batches, workers=1, pinned=False)))
    assert len(str(caught.value).splitlines()) == 1
    assert "Traceback" not in str(caught.value)


def test_shared_memory_that_is_too_small_ends_the_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an error, where torch's own way prints one in a worker and waits for the batch for ever."""

    def refuse(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("unable to write to file </torch_1>: No space left on device (28)\nat some place")

    pairs = Pairs(shards.in_memory(SET), context=31)
    batches = Batches(SET.samples, batch=16, rank=0, ranks=1, seed=5)
    with monkeypatch.context() as patched:
        patched.setattr(torch.Tensor, "share_memory_", refuse)
        with pytest.raises(ShardError) as caught:
            list(epochs.read(loader(pairs, batches, workers=2, pinned=False)))
        assert len(list(epochs.read(loader(pairs, batches, workers=0, pinned=False)))) == len(batches)
    message = str(caught.value)
    ahead_bytes = 2 * epochs.PREFETCHED * 16 * 3 * 31 * 8
    assert f"(/dev/shm) must hold the batches that 2 workers read ahead, {ahead_bytes} bytes a rank" in message
    assert message.endswith("No space left on device (28)")


ORPHAN = """
import json, sys, time
from stepbench.data import disk_shards, shards
from stepbench.data.epochs import Batches, Pairs, loader
made = shards.ShardSet(megabytes=1, context=31, vocabulary=300, seed=7)
batches = Batches(made.samples, batch=16, rank=0, ranks=1, seed=5)
iterator = iter(loader(Pairs(shards.in_memory(made), context=31), batches, workers=2, pinned=False))
next(iterator)
print(json.dumps([worker.pid for worker in iterator._workers]), flush=True)
time.sleep(60)
"""


def test_workers_end_with_the_process_that_they_read_for() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE) as process:
        assert process.stdout
        workers = json.loads(process.stdout.readline())
        assert len(workers) == 2
        assert all(map(alive, workers))
        process.kill()
    assert gone(workers)
