import gc
import subprocess
import sys
import weakref

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
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda: peak[0])
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", lambda: peak.__setitem__(0, 0))
    assert memory.peak_bytes("cuda")["peak_memory_bytes"] == 7_000
    memory.reset_peak("cpu")
    assert memory.peak_bytes("cuda")["peak_memory_bytes"] == 7_000
    memory.reset_peak("cuda")
    assert memory.peak_bytes("cuda")["peak_memory_bytes"] == 0


def test_the_peak_of_some_work_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flush buffer and a workspace are there before and after; inputs of 400 bytes are the work's own."""
    allocated = {"now": 10_400, "peak": 99_999}

    def work() -> None:
        allocated["peak"] = max(allocated["peak"], allocated["now"] + 250)

    def forget() -> None:
        allocated["peak"] = allocated["now"]

    monkeypatch.setattr(torch.accelerator, "memory_allocated", lambda: allocated["now"])
    monkeypatch.setattr(torch.accelerator, "max_memory_allocated", lambda: allocated["peak"])
    monkeypatch.setattr(torch.accelerator, "reset_peak_memory_stats", forget)
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.accelerator, name, lambda: None)
    found = memory.peak_of(work, device="cuda", inputs=[torch.zeros(100)])
    assert found["peak_memory_bytes"] == 400 + 250
    assert memory.peak_of(work, device="cpu", inputs=[])["peak_memory_bytes"] is None


def test_what_a_stage_leaves_in_cycles_is_freed_at_its_end() -> None:
    class Holder:
        def __init__(self) -> None:
            self.itself = self

    holder = Holder()
    seen = weakref.ref(holder)
    gc.disable()
    try:
        del holder
        assert seen() is not None
        memory.collect("cpu")
        assert seen() is None
    finally:
        gc.enable()


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


@pytest.mark.parametrize(("release", "asked"), [("6.6.87.2-microsoft-standard-WSL2", [0.75]), ("6.1.0-28-amd64", [])])
def test_where_the_driver_takes_the_hosts_memory_the_allocator_refuses_it(
    monkeypatch: pytest.MonkeyPatch, release: str, asked: list[float]
) -> None:
    monkeypatch.setattr(memory.platform, "release", lambda: release)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (6 * 2**30, 8 * 2**30))
    given: list[float] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", given.append)
    memory.share_of_device.cache_clear()
    try:
        memory.keep_to_device("cuda")
        memory.keep_to_device("cpu")
    finally:
        memory.share_of_device.cache_clear()
    assert given == asked
