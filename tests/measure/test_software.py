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


def test_a_build_for_another_device_than_the_cpu_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    values = dict.fromkeys(("__version__", "cuda", "hip", "xpu"))
    monkeypatch.setattr(software, "_torch_values", lambda: values)
    assert not software.has_accelerator()
    for key in ("cuda", "hip", "xpu"):
        monkeypatch.setattr(software, "_torch_values", lambda key=key: values | {key: "1"})
        assert software.has_accelerator()
