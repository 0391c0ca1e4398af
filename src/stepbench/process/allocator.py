"""The settings of glibc's malloc under which a cell is measured: memory that was freed stays with the process.

With its own settings malloc maps a buffer of some MiB at each call and unmaps it at each free, or gives the top of the
heap back, so that the kernel clears the same pages again in every step. Whether it does depends on the order of sizes:
eager and compiled forward pass differed by it more than by what they compute.

Source: "Memory Allocation Tunables" in the GNU C Library's manual; malloc/malloc.c of glibc 2.36 (`_int_memalign`).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping
from pathlib import Path

VARIABLE = "GLIBC_TUNABLES"
PREFIX = "glibc.malloc."
# With the first two alone nano's training step still took 2 500 new pages in most steps, and the heap grew. torch asks
# for addresses that are multiples of 64, for which malloc cuts a small piece off; these, kept for later in the caches
# of small chunks, stand between large ones that could be joined. Without these caches the smallest operator takes 6 %
# longer (1.16 and 1.24 us, one addition of one number), with a thread's cache of one chunk single steps still fault.
SETTINGS = {
    "mmap_max": 0,
    "trim_threshold": 2**34,
    "tcache_count": 0,
    "mxfast": 0,
    "arena_max": 1,  # other arenas, which threads get, unmap parts of theirs whatever the threshold
}


def environment(found: Mapping[str, str]) -> dict[str, str]:
    """Return these variables with the settings of malloc in place of their own; glibc's other tunables stay."""
    kept = {name: value for name, value in found.items() if not name.startswith("MALLOC_") and name != VARIABLE}
    others = [each for each in found.get(VARIABLE, "").split(":") if each and not each.startswith(PREFIX)]
    return {**kept, VARIABLE: ":".join([*others, *_settings()])}


def wanted() -> str | None:
    """Return the settings that a measuring process is started with, for fingerprints; None where it heeds none."""
    return ":".join(_settings()) if _is_glibc() else None


def stated() -> str | None:
    """Return the settings under which this process runs, or the file of the malloc that stands in glibc's place.

    Returns:
        None where there are no such settings: macOS, musl, or a process that was started without them.
    """
    if not _is_glibc():
        return None
    if not (provider := _provider()).startswith("libc"):
        return provider
    own = [each for each in os.environ.get(VARIABLE, "").split(":") if each.startswith(PREFIX)]
    return ":".join(own) or None


def _is_glibc() -> bool:
    return sys.platform == "linux" and "CS_GNU_LIBC_VERSION" in os.confstr_names


def _settings() -> list[str]:
    return [f"{PREFIX}{name}={value}" for name, value in SETTINGS.items()]


class _Found(ctypes.Structure):
    """`Dl_info` of dladdr(3)."""

    _fields_ = (
        ("file", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("symbol", ctypes.c_char_p),
        ("address", ctypes.c_void_p),
    )


def _provider() -> str:
    """Return the name of the file whose `malloc` this process calls; LD_PRELOAD may have put another before glibc's."""
    everything, found = ctypes.CDLL(None), _Found()
    everything.dladdr(ctypes.cast(everything.malloc, ctypes.c_void_p), ctypes.byref(found))
    return Path(os.fsdecode(found.file or b"libc")).name
