"""Versions of the software that affects a measurement."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sysconfig
from pathlib import Path


def versions() -> dict[str, str | None]:
    """Return the versions of torch, Triton, CUDA and Python without importing them; None if not installed."""
    torch = _torch_values()
    return {
        "torch": torch["__version__"],
        "triton": _version("triton"),
        "cuda": torch["cuda"],
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


def has_accelerator() -> bool:
    """Return whether torch was built for another device than the CPU, without importing it."""
    return any(_torch_values()[key] is not None for key in ("cuda", "hip", "xpu"))


def built_for_others() -> str | None:
    """Return what torch was built for where that is neither NVIDIA's GPUs nor the CPU alone, such as `ROCm 6.4`."""
    values = _torch_values()
    found = {"ROCm": values["hip"], "XPU": values["xpu"]}
    return next((f"{name} {version}" for name, version in found.items() if version is not None), None)


def lacks_compiler() -> str | None:
    """Return what is missing to compile the C with which Triton launches its kernels, with what to do; or None.

    torch.compile needs it too, on a GPU.
    """
    missing = []
    if not any(map(shutil.which, filter(None, (os.environ.get("CC"), "gcc", "clang", "cc")))):
        missing.append("a C compiler")
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        missing.append(f"Python.h ({sysconfig.get_path('include')})")
    if not missing:
        return None
    python = f"python{'.'.join(platform.python_version_tuple()[:2])}"
    return f"{' and '.join(missing)} missing: install gcc and {python}-dev (or {python}-devel, or a Python from uv)"


def transformers_version() -> str | None:
    """Return the version of transformers, which builds models from a config.json; None if it is not installed."""
    return _version("transformers")


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _torch_values() -> dict[str, str | None]:
    """Return what torch's version.py says of it; importing torch takes seconds."""
    keys = ("__version__", "cuda", "hip", "xpu")
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return dict.fromkeys(keys)
    text = (Path(spec.submodule_search_locations[0]) / "version.py").read_text(encoding="utf-8")
    found = {key: re.search(rf"^{key}(?::[^=]*)?\s*=\s*'([^']*)'", text, re.MULTILINE) for key in keys}
    return {key: match.group(1) if match else None for key, match in found.items()}
