"""What experiments on several ranks share: the measuring process starts ranks and raises what one of them raised.

A function of a module that begins with `_` and ends in `_on_ranks` is what the ranks run; it takes and returns what
JSON can hold.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from stepbench.measure import environment, memory
from stepbench.measure.devices import KINDS
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.parallel import rank
from stepbench.parallel.launch import where
from stepbench.parallel.outcome import RankError
from stepbench.parallel.team import Call, Team, TeamError

# Before the measuring process itself is ended, so that the record can name the rank that hung.
MARGIN_S = 5.0
DEVICES = tuple(name for name, kind in KINDS.items() if kind.backend is not None)
UNLIMITED_S = 24 * 3600.0
NODE = "node"  # beside what a rank of several nodes returned


def call(
    function: Callable[..., dict[str, Any]], setting: Setting, *, ranks: int, nodes: int = 1, **arguments: Any
) -> list[Any]:
    """Call `function(setting=…, **arguments)` in `ranks` processes on this host; return what each returned.

    With several `nodes` the ranks are divided among them (`stepbench.parallel.team`), in the order of ranks, and what
    each returned has the name of its node beside it.

    On CUDA each rank has a device of its own and talks through NCCL; on a CPU the threads of the protocol are divided,
    and ranks talk through Gloo.

    Raises:
        UnsupportedError: the nodes have not enough devices or cores, the ranks cannot be divided among them, or a rank
            said that it cannot do what is asked for.
        stepbench.parallel.outcome.RankError: a rank failed in another way, or had not ended in time; the message names
            it, and `kind` says whether memory ran out or a check failed.
        stepbench.parallel.team.TeamError: the nodes did not come together.
    """
    given = Call(
        kept_to_device,
        ranks // nodes,
        {"setting": setting.plain(), "function": where(function), "arguments": arguments},
        backend(setting),
        threads_per_rank(setting, ranks, nodes),
    )
    left_s = UNLIMITED_S if setting.deadline is None else setting.deadline - time.monotonic()
    deadline_s = max(1.0, left_s - MARGIN_S)
    try:
        if nodes > 1:
            return _on_nodes(given, nodes, setting.device, deadline_s)
        return given.run(None, deadline_s, fork=setting.may_fork and given.backend == "gloo")
    except RankError as error:
        told = UnsupportedError(error.message) if error.kind == UnsupportedError.kind else error
        if error.traceback:
            told.add_note(f"rank {error.rank}:\n{error.traceback}")
        raise told from None


def kept_to_device(*, setting: dict[str, Any], function: dict[str, Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """On a rank: call what is asked for, with no more of its device than is free where the driver refuses nothing."""
    memory.keep_to_device(setting["device"])
    found: dict[str, Any] = rank.function(function)(setting=setting, **arguments)
    return found


def _on_nodes(given: Call, nodes: int, device: str, deadline_s: float) -> list[Any]:
    with Team(nodes, device, environment.comparable(device), environment.node()) as team:
        try:
            found = team.call(given, deadline_s)
        except RankError as error:
            if silent := team.silent():
                told = f"{error.message or error}; {', '.join(silent)} fell silent"
                raise TeamError(told) from error
            raise
    return [{**each, NODE: team.names[rank // given.ranks]} for rank, each in enumerate(found)]


def named(results: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the detail `nodes` of a measurement on several, their names in order; nothing of one on one node."""
    names = list(dict.fromkeys(each[NODE] for each in results if NODE in each))
    return {"nodes": names} if names else {}


def backend(setting: Setting) -> str:
    """Return what the ranks of a device talk through."""
    return KINDS[setting.device].backend or "gloo"


def threads_per_rank(setting: Setting, ranks: int, nodes: int = 1) -> int:
    """Return how many threads each rank computes with.

    Raises:
        UnsupportedError: the ranks cannot be divided among the nodes, or there is not a device, or a thread, for each.
    """
    if ranks < 1:
        raise UnsupportedError(f"there must be at least one rank, got {ranks}")
    if ranks % nodes:
        raise UnsupportedError(f"`ranks` must be a multiple of `nodes`, got {ranks} on {nodes}")
    ranks //= nodes
    if setting.device not in DEVICES:
        raise UnsupportedError(f"ranks need the device cuda or cpu, got {setting.device}")
    threads = setting.protocol["threads"]
    if KINDS[setting.device].is_gpu:
        if (devices := torch.accelerator.device_count()) < ranks:
            raise UnsupportedError(f"{ranks} ranks need {ranks} GPUs, got {devices}")
        return max(1, threads // ranks)
    if threads < ranks:
        raise UnsupportedError(f"{ranks} ranks need a core each, got `protocol.threads` {threads}")
    return int(threads // ranks)


def by_rank(results: Sequence[Mapping[str, Mapping[str, Any]]], key: str = "samples") -> dict[str, list[Any]]:
    """Return what each rank returned under `key` as one list per name, an entry for each rank."""
    return {name: [result[key][name] for result in results] for name in results[0][key]}
