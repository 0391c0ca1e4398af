"""Start ranks, and report how each ended.

    results = launch(function, 2, arguments={"size": "nano"}, backend="gloo", deadline_s=60)

calls `function(size="nano")` in two new processes that form a process group, and returns what each returned. If a
rank raises, dies, hangs or leaves without a word, `launch` raises within the deadline, says which rank it was and why,
and no process is left behind, not even if the launcher itself is killed.

Torch's elastic agent does the work (`agent.py`). It runs in a thread: the caller keeps its signal handlers, and a
rendezvous that hangs inside C++ does not take the deadline with it. That thread is also what the ranks' lives are tied
to (`PR_SET_PDEATHSIG` is about the parent's thread, not its process).
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed

from stepbench.parallel import rank as rank_process
from stepbench.parallel.agent import Agent
from stepbench.parallel.outcome import (
    ERROR,
    OK,
    STOPPED,
    TIMEOUT,
    RankError,
    RankOutcome,
    RankTimeoutError,
    describe_exit,
    describe_hang,
    results,
)
from stepbench.parallel.rank import outcome_path, output_path, stack_path
from stepbench.parallel.rendezvous import FixedRendezvous, Nodes

BACKENDS = ("gloo", "nccl")
_SLACK_S = 1.5  # what the agent may take after the deadline to stop its ranks; 2 s are promised
_LATER_S = 10.0  # than the launcher gives up, a collective does: who hangs is for the launcher to tell
_EXCHANGE_S = 5.0  # how long a launcher with a failure waits for the other nodes' version of it
_OUTPUT_BYTES = 16_000


def launch(
    function: Callable[..., Any],
    ranks: int,
    *,
    arguments: Mapping[str, Any] | None = None,
    backend: str,
    deadline_s: float,
    threads: int = 1,
    nodes: Nodes | None = None,
    fork: bool = False,
) -> list[Any]:
    """Call `function` in `ranks` new processes that form a process group, and return what each returned.

    Args:
        function: found by its name in the new processes, so it must stand at the top of a module or of the script that
            runs (then with a `__main__` guard). It runs after `init_process_group`, with the device set for NCCL.
        ranks: processes on this node, at least 1.
        arguments: keyword arguments of the function, the same for all ranks; they travel as JSON, and so do results
            (tuples come back as lists; NaN is refused). Nothing is ever unpickled.
        backend: `gloo` for CPUs, `nccl` for one GPU per rank.
        deadline_s: seconds for everything from here to the last result, the meeting of the ranks included.
        threads: that torch uses in each rank.
        nodes: the other machines, if there are any; each runs this same call.
        fork: whether the ranks begin as copies of this process, which saves them the import of torch (2 s), and not as
            fresh ones. For a process that has imported torch and computed nothing: threads do not survive a fork, and
            a lock that one of them holds is never released. Not with NCCL, for CUDA does not survive one either.

    Returns:
        One result per rank, in rank order, of all nodes.

    Raises:
        ValueError: an argument cannot be used.
        RankTimeoutError: not done at the deadline; raised at most 2 s after it.
        RankError: a rank raised, was killed, or left without a result; the message names it and says why.
    """
    _check(function, ranks, backend=backend, deadline_s=deadline_s, threads=threads, fork=fork)
    deadline = time.monotonic() + deadline_s
    # Only this user can enter the folder, so what is read from it was written by the ranks.
    with tempfile.TemporaryDirectory(prefix="stepbench-ranks-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        job = {
            "function": where(function),
            "arguments": dict(arguments or {}),
            "backend": backend,
            "threads": threads,
            "timeout_s": deadline_s + _LATER_S,
            "launcher": os.getpid(),
            "interface": "lo" if nodes is None else nodes.interface,
            "sys_path": sys.path,
        }
        try:
            (folder / "job.json").write_text(json.dumps(job, allow_nan=False), encoding="utf-8")
        except (TypeError, ValueError) as error:
            raise ValueError(f"`arguments` must be what JSON can hold, got {error}") from None
        agent = Agent(ranks, folder, FixedRendezvous(nodes, deadline_s), deadline, fork=fork)
        _run(agent, deadline, deadline_s)
        outcomes = [_outcome(agent, rank, deadline_s) for rank in agent.ranks]
        if nodes is not None:
            outcomes = _exchange(agent, nodes, outcomes, deadline)
    return results(outcomes)


def _check(
    function: Callable[..., Any], ranks: int, *, backend: str, deadline_s: float, threads: int, fork: bool
) -> None:
    if "<" in getattr(function, "__qualname__", "<"):
        raise ValueError(
            f"`function` must stand at the top of a module, so that a new process finds it, got {function}"
        )
    for name, number in (("ranks", ranks), ("threads", threads)):
        if number < 1:
            raise ValueError(f"`{name}` must be at least 1, got {number}")
    if not 0 < deadline_s < math.inf:
        raise ValueError(f"`deadline_s` must be positive and finite, got {deadline_s}")
    if backend not in BACKENDS:
        raise ValueError(f"`backend` must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if fork and backend != "gloo":
        raise ValueError(f"`fork` needs the backend gloo, got {backend}")
    if backend == "nccl" and torch.cuda.device_count() < ranks:
        raise ValueError(f"`ranks` must be at most {torch.cuda.device_count()}, one per CUDA device, got {ranks}")


def where(function: Callable[..., Any]) -> dict[str, str | None]:
    """Return how a new process finds a function, on this node or another.

    Raises:
        ValueError: it was typed into an interpreter.
    """
    module, script = function.__module__, None
    if module == "__main__":
        main = sys.modules["__main__"]
        if main.__spec__ is not None:
            module = main.__spec__.name
        elif (script := getattr(main, "__file__", None)) is None:
            raise ValueError("`function` must stand in a file, so that a new process finds it, got one typed in")
        else:
            script = str(Path(script).resolve())
    return {"module": module, "qualname": function.__qualname__, "script": script}


def _run(agent: Agent, deadline: float, deadline_s: float) -> None:
    """Run the agent in a thread until it is done or the deadline over, whatever it is stuck in.

    Raises:
        RankTimeoutError: the nodes did not meet in time.
        RankError: the agent itself failed.
    """
    failure: list[Exception] = []
    # Not the thread's own state: Python 3.11 takes a thread for ended when Ctrl-C interrupts who waits for it.
    done = threading.Event()

    def run() -> None:
        try:
            agent.run()
        except Exception as error:
            failure.append(error)
        finally:
            done.set()

    threading.Thread(target=run, name="ranks", daemon=True).start()
    try:
        if not done.wait(deadline - time.monotonic()) and agent.ranks:
            done.wait(_SLACK_S)
    finally:
        if not done.is_set():
            agent.timed_out = time.monotonic() >= deadline
            agent.cancel()
            done.wait(0.1)
    if not agent.ranks:
        late = time.monotonic() >= deadline
        reason = f": {failure[0]}" if failure else ""
        kind, when = (RankTimeoutError, f" within {deadline_s:g} s") if late else (RankError, "")
        raise kind(f"the ranks were never started, the launchers did not meet{when}{reason}") from None
    if failure and not agent.timed_out:
        raise RankError(f"the launcher failed: {failure[0]}") from failure[0]


def _outcome(agent: Agent, rank: int, deadline_s: float) -> RankOutcome:
    """Return how a rank of this node ended, from its own report and from what the agent observed."""
    exit_code = agent.exit_codes.get(rank)
    outcome = RankOutcome(rank, OK, exit_code=exit_code, output=_tail(output_path(agent.folder, rank)))
    said = _last_word(outcome_path(agent.folder, rank))
    if "exception" in said:
        ended_s = said.pop("time_s")
        return replace(outcome, status=ERROR, ended_s=ended_s, **said)
    if exit_code is None and agent.timed_out:
        stack = _stack(stack_path(agent.folder, rank))
        return replace(outcome, status=TIMEOUT, reason=describe_hang(stack, deadline_s), traceback=stack or None)
    if exit_code is None:
        return replace(outcome, status=STOPPED, reason="was stopped because another rank had failed")
    if exit_code == 0 and "result" in said:
        return replace(outcome, result=said["result"])
    return replace(outcome, status=ERROR, reason=describe_exit(exit_code), ended_s=agent.seen_alive_s[rank])


def _exchange(agent: Agent, nodes: Nodes, outcomes: list[RankOutcome], deadline: float) -> list[RankOutcome]:
    """Return the outcomes of all nodes, in rank order; of a node that is silent, none.

    Node 0 waits until the others have read, because the store ends with it.
    """
    failed = any(outcome.status != OK for outcome in outcomes)
    end = min(deadline, time.monotonic() + _EXCHANGE_S) if failed else deadline
    everyone, store = range(nodes.count), agent.store
    if store is None:
        return outcomes

    def wait_for(what: str) -> None:
        left = end + _SLACK_S - time.monotonic()
        store.wait([f"{what}/{node}" for node in everyone], timedelta(seconds=max(0.05, left)))

    found: list[RankOutcome] = []
    try:
        store.set(f"outcomes/{nodes.rank}", json.dumps([asdict(outcome) for outcome in outcomes]))
        wait_for("outcomes")
        for node in everyone:
            found += [RankOutcome(**outcome) for outcome in json.loads(store.get(f"outcomes/{node}"))]
        store.set(f"read/{nodes.rank}", "yes")
        if nodes.rank == 0:
            wait_for("read")
    except torch.distributed.DistError as error:
        if not found and not failed:
            raise RankError(f"the ranks of this node are done, but another launcher fell silent: {error}") from None
    return sorted(found or outcomes, key=lambda outcome: outcome.rank)


def _last_word(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _stack(path: Path) -> str:
    """Return a rank's stack from the innermost frame to its `main`; below that a copy has the launcher's frames."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return ""
    outermost = next(
        (number for number, line in enumerate(lines) if rank_process.__file__ in line and " in main" in line), None
    )
    return "".join(lines if outermost is None else lines[: outermost + 1])


def _tail(path: Path) -> str:
    try:
        return path.read_bytes()[-_OUTPUT_BYTES:].decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
