"""The checks of values that a pretended GPU cannot pass, because its kernels write nothing: all softened here.

FAKE_MISSING names modules that are not installed on the pretended machine, FAKE_RELEASE the release of its kernel.

Python imports this module in each process of a pretended machine. What is not listed here is checked as on any machine.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import os
import platform
import sys
from typing import Any

# Module -> names of functions that only compare values, and what they return here.
SOFTENED: dict[str, dict[str, Any]] = {
    "stepbench.workloads.timed": {"check_loss": None},
    "stepbench.workloads.equivalence": {"check": {}},
    "stepbench.workloads.epochs_on_ranks": {"check_equal": None},
    "stepbench.experiments.ceilings.measure": {"_check_copy": None},
    "stepbench.experiments.collectives.on_ranks": {"_check": None},
    "stepbench.workloads.attention_check": {
        "errors": {f"{name}_{kind}": 0.0 for name in ("o", "dq", "dk", "dv") for kind in ("error", "plain_error")}
        | {"checked_heads": 0},
    },
}


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: Any) -> None:
        super().exec_module(module)
        for name, answer in SOFTENED[module.__name__].items():
            if not callable(getattr(module, name)):
                raise TypeError(f"`{name}` of {module.__name__} must be a function")
            setattr(module, name, lambda *_, answer=answer, **__: answer)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name not in SOFTENED:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.origin is not None:
            spec.loader = _Loader(name, spec.origin)
        return spec


sys.meta_path.insert(0, _Finder())

for _name in filter(None, os.environ.get("FAKE_MISSING", "").split(",")):
    sys.modules[_name] = None  # type: ignore[assignment]  # as if it were not installed
if "FAKE_RELEASE" in os.environ:
    platform.release = lambda: os.environ["FAKE_RELEASE"]

if "COVERAGE_PROCESS_START" in os.environ and importlib.util.find_spec("coverage"):  # `make test-fake-gpu-coverage`
    import coverage

    coverage.process_startup()
