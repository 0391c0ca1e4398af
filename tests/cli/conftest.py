import importlib
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module that compiles kernels, in a folder without config.yaml, which these commands do not need."""
    pytest.importorskip("triton")
    monkeypatch.chdir(tmp_path)
    return importlib.import_module("stepbench.kernels.triton.resources")
