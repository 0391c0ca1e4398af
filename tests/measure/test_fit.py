"""What is predicted not to fit is refused, where there is a device to fit into."""

from types import SimpleNamespace

import pytest
import torch

from stepbench.measure import fit
from stepbench.measure.measurement import PredictedOutOfMemoryError


@pytest.fixture
def small_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=24 * 2**30))


@pytest.mark.usefixtures("small_gpu")
def test_what_needs_more_than_the_device_has_is_refused_with_both_figures() -> None:
    with pytest.raises(PredictedOutOfMemoryError) as raised:
        fit.check(25 * 2**30, "cuda")
    assert str(raised.value).startswith("predicted to need 25.0 GiB, but the device has 24.0 GiB;")


@pytest.mark.usefixtures("small_gpu")
def test_what_fits_to_the_byte_is_started() -> None:
    assert fit.capacity_bytes("cuda") == 24 * 2**30
    fit.check(24 * 2**30, "cuda")


def test_a_cpu_refuses_nothing() -> None:
    assert fit.capacity_bytes("cpu") is None
    fit.check(2**60, "cpu")
