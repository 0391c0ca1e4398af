"""Training on several ranks: the strategies, and what sets one up by its name.

Names are resolved when they are first used, so that whoever wants one strategy does not import all.
"""

import importlib
from typing import Any

# What is public -> the module that defines it.
_PUBLIC = {
    "FSDP": "fsdp",
    "BucketedDDP": "bucketed",
    "FlatDDP": "flat",
    "NaiveDDP": "naive",
    "OverlappedDDP": "overlapped",
    "ShardedOptimizer": "sharded_optimizer",
    "parallelize": "strategies",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PUBLIC[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
