"""What the probing process says of a device; the device is given."""

from types import SimpleNamespace

import pytest
import torch

from stepbench.measure import device_probe


@pytest.mark.parametrize(("hip", "capability"), [(None, "9.4"), ("6.4.43", None)])
def test_rocms_numbers_are_no_compute_capability(
    monkeypatch: pytest.MonkeyPatch, hip: str | None, capability: str | None
) -> None:
    """An MI300X says 9.4, which is no relative of NVIDIA's 9.0."""
    properties = SimpleNamespace(name="a GPU", total_memory=2**30, major=9, minor=4, multi_processor_count=304)
    module = SimpleNamespace(get_device_properties=lambda _ordinal: properties)
    monkeypatch.setattr(torch, "get_device_module", lambda _kind: module)
    monkeypatch.setattr(torch.version, "hip", hip)
    found = device_probe._device("cuda", 0)
    assert (found["capability"], found["memory_bytes"], found["multiprocessors"]) == (capability, 2**30, 304)
