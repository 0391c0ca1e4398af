"""What is predicted not to fit is refused, where there is a device to fit into."""

from types import SimpleNamespace

import pytest
import torch

from stepbench.measure import fit
from stepbench.measure.measurement import PredictedOutOfMemoryError


@pytest.fixture
def small_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: SimpleNamespace(total_memory=24 * 2**30))


@pytest.mark.usefixtures("small_gpu")
def test_what_needs_more_than_the_device_has_is_refused_with_both_figures() -> None:
    with pytest.raises(PredictedOutOfMemoryError) as raised:
        fit.check(25 * 2**30, "cuda")
    assert str(raised.value).startswith(
        "predicted to need 25.0 GiB, but the device has 24.0 GiB, 0.75 of them for CUDA's"
    )


@pytest.mark.usefixtures("small_gpu")
def test_what_fits_beside_cudas_context_is_started() -> None:
    assert fit.capacity_bytes("cuda") == 24 * 2**30
    fit.check(24 * 2**30 - fit.HEADROOM_BYTES, "cuda")
    with pytest.raises(PredictedOutOfMemoryError):
        fit.check(24 * 2**30 - fit.HEADROOM_BYTES + 1, "cuda")


def test_a_cpu_refuses_nothing() -> None:
    assert fit.capacity_bytes("cpu") is None
    fit.check(2**60, "cpu")
