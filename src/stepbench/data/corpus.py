"""The default text: the source of the Python standard library, which every machine that runs stepbench has."""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

# Excluded: they contain other languages, broken encodings and generated tables.
TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})


def read(corpus_bytes: int) -> bytes:
    """Return the first `corpus_bytes` of the standard library's modules, joined in the order of their paths.

    Raises:
        ValueError: the library has fewer bytes.
    """
    root = Path(sysconfig.get_path("stdlib"))
    # The interpreter's list of its modules excludes files that a distribution, a build or pip has added.
    found = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if path.relative_to(root).parts[0].removesuffix(".py") in sys.stdlib_module_names
        and TEST_FOLDERS.isdisjoint(path.relative_to(root).parts)
    )
    corpus = bytearray()
    for name in found:
        corpus += (root / name).read_bytes()
        if len(corpus) >= corpus_bytes:
            return bytes(corpus[:corpus_bytes])
    raise ValueError(f"`data.corpus_bytes` must be at most {len(corpus)}, the length of {root}, got {corpus_bytes}")
