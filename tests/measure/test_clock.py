import pytest
import torch

from stepbench.measure import clock


def test_the_host_clock_goes_forward_and_waits_for_its_device() -> None:
    calls: list[str] = []
    host = clock.HostClock(lambda: calls.append("wait"), "host")
    first = host.now()
    host.synchronize()
    assert host.now() >= first
    assert calls == ["wait"]


@pytest.mark.parametrize("device", ["cpu", "cuda", "xpu", "mps"])
def test_each_device_has_its_own_wait(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: calls.append(device))
    found = clock.for_device(device)
    found.synchronize()
    assert calls == ([] if device == "cpu" else [device])
    assert ("synchronised" in found.name) == found.is_asynchronous == (device != "cpu")


def test_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match="`device` must be one of cuda, xpu, mps, cpu, got 'tpu'"):
        clock.for_device("tpu")
