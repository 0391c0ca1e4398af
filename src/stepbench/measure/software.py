"""Versions of the software that affects a measurement."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import platform
import re
from collections.abc import Mapping
from pathlib import Path


def versions() -> dict[str, str | None]:
    """Return the versions of torch, Triton, CUDA and Python without importing them; None if not installed."""
    torch_version, cuda = _torch_version()
    return {
        "torch": torch_version,
        "triton": _version("triton"),
        "cuda": cuda,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def check_build(device: str, found: Mapping[str, str | None]) -> None:
    """Check that torch was built with CUDA if a GPU is measured, because otherwise every cell fails.

    Args:
        device: `cuda`, `mps` or `cpu`.
        found: the versions on the machine that measures.

    Raises:
        ValueError: `device` is `cuda`, and torch was built without CUDA.
    """
    if device == "cuda" and found["cuda"] is None:
        raise ValueError(
            f"torch must be built with CUDA to measure an NVIDIA GPU, got {found['torch']}: install it again "
            "(rm -r .venv and make report CPU_INDEX=, or UV_NO_GROUP=cpu uv sync), or set `device: cpu` in config.yaml"
        )


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _torch_version() -> tuple[str | None, str | None]:
    """Return the versions of torch and its CUDA from its version.py; importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None, None
    text = (Path(spec.submodule_search_locations[0]) / "version.py").read_text(encoding="utf-8")
    values = {
        key: re.search(rf"^{key}(?::[^=]*)?\s*=\s*'([^']*)'", text, re.MULTILINE) for key in ("__version__", "cuda")
    }
    return tuple(match.group(1) if match else None for match in values.values())  # type: ignore[return-value]
