"""Predictions against what is known byte by byte, and against torch's own tracker."""

import functools

import torch
from tests.measure import watched
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from stepbench.measure import memory, predicted_memory
from stepbench.measure.predicted_memory import StorageWatcher


def test_every_byte_of_a_small_step_is_predicted() -> None:
    scalars = predicted_memory.predict(watched.SmallStep).scalars()
    for category in ("parameters", "gradients", "optimizer_state"):
        assert scalars[f"before_{category}_bytes"] == watched.PARAMETER_BYTES
    assert scalars["forward_after_activations_bytes"] == watched.ACTIVATION_BYTES
    assert scalars["backward_after_gradients_bytes"] == watched.PARAMETER_BYTES
    assert scalars["backward_peak_bytes"] < scalars["forward_peak_bytes"] + watched.PARAMETER_BYTES


def test_nothing_is_allocated_for_what_is_predicted() -> None:
    def enormous() -> watched.SmallStep:
        step = watched.SmallStep()
        step.model[0] = nn.Linear(2**20, 2**20, bias=False)  # four TiB of weights
        step.inputs = torch.ones(2, 2**20)
        step.model[2] = nn.Linear(2**20, 1, bias=False)
        step.optimizer = torch.optim.SGD(step.model.parameters(), lr=0.1, foreach=False)
        return step

    before = memory.peak_resident_bytes()
    scalars = predicted_memory.predict(enormous).scalars()
    assert scalars["peak_memory_bytes"] > 8 * 2**40
    assert memory.peak_resident_bytes() - before < 2**30


def test_torchs_own_tracker_counts_the_same() -> None:
    """The tracker of torch.distributed counts by module and in categories of its own; the totals must agree."""
    theirs, ours = MemTracker(), StorageWatcher()
    with FakeTensorMode():
        model = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
        inputs = torch.ones(2, 16, 32)
        theirs.track_external(model, inputs)
        with theirs:
            model(inputs).sum().backward()
    with FakeTensorMode(), ours:
        model = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
        inputs = torch.ones(2, 16, 32)
        ours.run("forward and backward", lambda: model(inputs).sum().backward(), dict)
    expected = theirs.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    assert sum(ours.timeline().peak().values()) == expected


def test_a_gpus_allocator_rounds_up_and_a_cpus_does_not() -> None:
    for device, size_bytes in (("cuda:0", 1024), ("cpu", 516)):
        with FakeTensorMode(), StorageWatcher() as watcher:
            kept: list[torch.Tensor] = []
            allocate = functools.partial(torch.empty, 129, device=device)
            watcher.run("forward", lambda kept=kept, allocate=allocate: kept.append(allocate()), dict)
            assert sum(watcher.timeline().peak().values()) == size_bytes
