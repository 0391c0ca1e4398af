"""The versions of the software that can change a number."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import platform
import re
from pathlib import Path


def versions() -> dict[str, str | None]:
    """Return the versions that can change a number, without importing what they are the versions of."""
    torch_version, cuda = _torch_version()
    return {
        "torch": torch_version,
        "triton": _version("triton"),
        "cuda": cuda,
        "python": ".".join(platform.python_version_tuple()[:2]),
    }


@functools.cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _torch_version() -> tuple[str | None, str | None]:
    """Return torch's version and its CUDA, read from its version.py: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        return None, None
    text = (Path(spec.submodule_search_locations[0]) / "version.py").read_text(encoding="utf-8")
    values = {
        key: re.search(rf"^{key}(?::[^=]*)?\s*=\s*'([^']*)'", text, re.MULTILINE) for key in ("__version__", "cuda")
    }
    return tuple(match.group(1) if match else None for match in values.values())  # type: ignore[return-value]
