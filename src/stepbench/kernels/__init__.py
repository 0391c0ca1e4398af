"""One attention operator, many implementations.

Names are resolved when they are first used: `stepbench.kernels.names` is read without importing torch.
"""

import importlib
from typing import Any

__all__ = ["IMPLEMENTATIONS", "NoSecondDerivative", "UnsupportedAttention", "attention", "unsupported_reason"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
