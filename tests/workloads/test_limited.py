"""A step within a limit on a GPU's memory; the calls of torch that need a GPU are given."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stepbench.measure import fit, memory
from stepbench.measure.measurement import PredictedOutOfMemoryError
from stepbench.workloads import limited, step

GIB = 2**30
TOTAL = 8 * GIB
ON_A_GPU: Any = SimpleNamespace(device="cuda")


@pytest.fixture
def shares(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pretend a GPU of 8 GiB under WSL2, of which half is free; return the shares that the allocator was given."""
    given: list[float] = []
    monkeypatch.setattr(memory, "share_of_device", lambda: 0.5)
    monkeypatch.setattr(fit, "capacity_bytes", lambda _device: TOTAL)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: SimpleNamespace(total_memory=TOTAL))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", given.append)
    return given


def raising(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def build(*_arguments: object, **_more: object) -> None:
        raise error

    monkeypatch.setattr(step, "build", build)


def test_what_lies_in_the_hosts_memory_under_wsl2_is_not_searched(
    shares: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    raising(monkeypatch, torch.OutOfMemoryError("CUDA out of memory"))
    for asked, share in ((None, 0.5), (2048, 0.25)):
        shares.clear()
        limit = limited.limit_bytes(ON_A_GPU, asked)
        assert limit == share * TOTAL
        assert not limited.runs(None, ON_A_GPU, limit)  # type: ignore[arg-type]
        assert shares == [share, 0.5]
    shares.clear()
    assert not limited.runs(None, ON_A_GPU, TOTAL)  # type: ignore[arg-type]
    assert shares == [0.5, 0.5]


@pytest.mark.usefixtures("shares")
def test_where_no_limit_is_asked_for_it_is_what_a_step_is_trusted_to_fit_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "share_of_device", lambda: 1.0)
    limit = limited.limit_bytes(ON_A_GPU, None)
    fit.check(limit, "cuda")
    with pytest.raises(PredictedOutOfMemoryError):
        fit.check(limit + 1, "cuda")
    assert limited.limit_bytes(ON_A_GPU, TOTAL >> 20) == TOTAL  # who asks for a limit gets it


@pytest.mark.parametrize("text", ["CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED"])
@pytest.mark.usefixtures("shares")
def test_what_ran_out_by_another_name_does_not_fit(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    raising(monkeypatch, RuntimeError(text))
    assert not limited.runs(None, ON_A_GPU, TOTAL)  # type: ignore[arg-type]


@pytest.mark.usefixtures("shares")
def test_what_fails_for_another_reason_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    raising(monkeypatch, RuntimeError("an illegal memory access was encountered"))
    with pytest.raises(RuntimeError, match="illegal"):
        limited.runs(None, ON_A_GPU, TOTAL)  # type: ignore[arg-type]
