import subprocess
import sys

import pytest
import torch

from stepbench.measure import memory


def test_the_host_counts_the_process_at_its_largest() -> None:
    before = memory.peak_bytes("cpu")
    assert before["peak_memory_bytes"] is None
    assert before["peak_host_bytes"] is not None
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    after = memory.peak_bytes("cpu")["peak_host_bytes"]
    del block
    assert after is not None
    assert after >= before["peak_host_bytes"]
    assert abs(memory.peak_resident_bytes() - after) < 16 * 2**20  # the kernel's count lags by what each core batches


def test_a_large_parent_is_not_counted_as_its_childs_peak() -> None:
    block = bytearray(512 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    script = "from stepbench.measure import memory; print(memory.peak_resident_bytes())"
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert memory.peak_resident_bytes() > len(block) > 4 * int(child.stdout)
    del block


def test_the_device_counts_since_it_was_told_to_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    peak = [7_000]
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: peak[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: peak.__setitem__(0, 0))
    assert memory.peak_bytes("cuda")["peak_memory_bytes"] == 7_000
    memory.reset_peak("cpu")
    assert memory.peak_bytes("cuda")["peak_memory_bytes"] == 7_000
    memory.reset_peak("cuda")
    assert memory.peak_bytes("cuda")["peak_memory_bytes"] == 0


@pytest.mark.parametrize("counted", ["num_device_alloc", "segment.all.allocated"])
def test_the_allocators_calls_are_those_since_the_start(monkeypatch: pytest.MonkeyPatch, counted: str) -> None:
    stats = {"num_alloc_retries": 2, counted: 30}
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda: stats)
    calls = memory.AllocatorCalls("cuda")
    calls.start()
    assert calls.scalars() == {"allocator_retries": 0, "device_allocations": 0}
    stats |= {"num_alloc_retries": 3, counted: 34}
    assert calls.scalars() == {"allocator_retries": 1, "device_allocations": 4}


def test_no_calls_are_counted_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda: pytest.fail("there is no CUDA"))
    calls = memory.AllocatorCalls("cpu")
    calls.start()
    assert calls.scalars() == {}
