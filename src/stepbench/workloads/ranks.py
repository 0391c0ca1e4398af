"""What experiments on several ranks share in the measuring process: it starts ranks and raises what one of them raised.

A function of a module that begins with `_` and ends in `_on_ranks` is what the ranks run; it takes and returns what
JSON can hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.parallel.launch import launch
from stepbench.parallel.outcome import RankError

# Before the measuring process itself is ended, so that the record can name the rank that hung.
MARGIN_S = 5.0
DEVICES = ("cuda", "cpu")
UNLIMITED_S = 24 * 3600.0


def call(function: Callable[..., dict[str, Any]], setting: Setting, *, ranks: int, **arguments: Any) -> list[Any]:
    """Call `function(setting=…, **arguments)` in `ranks` processes on this host; return what each returned.

    On CUDA each rank has a device of its own and talks through NCCL; on a CPU the threads of the protocol are divided,
    and ranks talk through Gloo.

    Raises:
        UnsupportedError: this host has not enough devices or cores, or a rank said that it cannot do what is asked for.
        stepbench.parallel.outcome.RankError: a rank failed in another way, or had not ended in time; the message names
            it, and `kind` says whether memory ran out or a check failed.
    """
    threads = threads_per_rank(setting, ranks)
    left_s = UNLIMITED_S if setting.deadline is None else setting.deadline - time.monotonic()
    try:
        return launch(
            function,
            ranks,
            arguments={"setting": setting.plain(), **arguments},
            backend=backend(setting),
            deadline_s=max(1.0, left_s - MARGIN_S),
            threads=threads,
            fork=setting.may_fork and backend(setting) == "gloo",
        )
    except RankError as error:
        told = UnsupportedError(error.message) if error.kind == UnsupportedError.kind else error
        if error.traceback:
            told.add_note(f"rank {error.rank}:\n{error.traceback}")
        raise told from None


def backend(setting: Setting) -> str:
    """Return what the ranks of a device talk through."""
    return "nccl" if setting.device == "cuda" else "gloo"


def threads_per_rank(setting: Setting, ranks: int) -> int:
    """Return how many threads each rank computes with.

    Raises:
        UnsupportedError: there is not a device, or not a thread, for each rank.
    """
    if ranks < 1:
        raise UnsupportedError(f"there must be at least one rank, got {ranks}")
    if setting.device not in DEVICES:
        raise UnsupportedError(f"ranks need the device cuda or cpu, got {setting.device}")
    threads = setting.protocol["threads"]
    if setting.device == "cuda":
        if (devices := torch.cuda.device_count()) < ranks:
            raise UnsupportedError(f"{ranks} ranks need {ranks} CUDA devices, got {devices}")
        return max(1, threads // ranks)
    if threads < ranks:
        raise UnsupportedError(f"{ranks} ranks need a core each, got `protocol.threads` {threads}")
    return int(threads // ranks)


def by_rank(results: Sequence[Mapping[str, Mapping[str, Any]]], key: str = "samples") -> dict[str, list[Any]]:
    """Return what each rank returned under `key` as one list per name, an entry for each rank."""
    return {name: [result[key][name] for result in results] for name in results[0][key]}
