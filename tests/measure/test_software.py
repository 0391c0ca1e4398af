"""Versions, without importing what they are the versions of."""

import importlib.metadata
import platform

import pytest
import torch

from stepbench.measure import software


def test_versions_are_told_without_importing_what_they_are_of() -> None:
    found = software.versions()
    assert found["torch"] == torch.__version__
    assert found["cuda"] == torch.version.cuda
    assert found["python"] == ".".join(platform.python_version_tuple()[:2])
    try:
        assert found["triton"] == importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        assert found["triton"] is None


def test_a_gpu_is_not_measured_by_a_torch_without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(software, "_torch_version", lambda: ("2.13.0+cpu", None))
    with pytest.raises(ValueError, match=r"built with CUDA .* got 2\.13\.0\+cpu: install it again .*UV_NO_GROUP=cpu"):
        software.check_build("cuda", software.versions())
    software.check_build("cpu", software.versions())
    monkeypatch.setattr(software, "_torch_version", lambda: ("2.13.0+cu130", "13.0"))
    software.check_build("cuda", software.versions())
