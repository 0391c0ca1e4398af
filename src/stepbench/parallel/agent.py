"""Torch's elastic agent, with the holes closed that a measurement falls into.

What torch does: it meets the other nodes, numbers the ranks, starts them, and looks at them ten times a second. What it
does not: it has no deadline; when one rank dies it ends the others at once, before they or it could be asked why; and
one that ignores SIGTERM lives on for 30 s.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from torch.distributed import DistError, Store  # type: ignore[attr-defined]
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec, WorkerState
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs

from stepbench.parallel import rank as rank_process
from stepbench.parallel.rendezvous import FixedRendezvous

_LOOK_EVERY_S = 0.05
_LAST_WORDS_S = 1.0  # after the first death the others may say what happened to them
_STACK_S = 0.3
_TERM_S, _KILL_S = 0.5, 0.3  # with _STACK_S well under the 2 s that are promised after a deadline
_FAILED_KEY = "failed"


class ForkedRank:
    """A process of multiprocessing's, seen as one of subprocess'."""

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None  # noqa: S101 - it has been started
        self.pid = process.pid
        self._process = process

    def poll(self) -> int | None:
        """Return the exit code, negative after a signal, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float) -> None:
        """Wait for its end, for `timeout` seconds at most.

        Raises:
            subprocess.TimeoutExpired: it runs on.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("rank", timeout)


class Agent(LocalElasticAgent):
    """One node's ranks, watched until all are done, one has failed, or the deadline is over.

    Args:
        ranks: how many to start on this node.
        folder: holds the job's file; the ranks write beside it.
        rendezvous: where the nodes meet.
        deadline: when to give up, on `time.monotonic()`.
        fork: whether the ranks are copies of this process; otherwise they are fresh ones.

    Attributes:
        exit_codes: of the ranks that ended by themselves, keyed by global rank.
        seen_alive_s: until when each was seen alive, `time.time()`, keyed by global rank.
        timed_out: the deadline passed while ranks were running.
        store: what the nodes share, once they have met.
    """

    def __init__(self, ranks: int, folder: Path, rendezvous: FixedRendezvous, deadline: float, *, fork: bool) -> None:
        job_file = str(folder / "job.json")
        spec = WorkerSpec(
            role="rank",
            local_world_size=ranks,
            rdzv_handler=rendezvous,
            entrypoint=rank_process.main_of_a_copy if fork else sys.executable,
            args=(job_file,) if fork else ("-P", rank_process.__file__, job_file),
            max_restarts=0,
            monitor_interval=_LOOK_EVERY_S,
            local_addr=None if rendezvous.nodes else "127.0.0.1",
        )
        logs = DefaultLogsSpecs(log_dir=str(folder / "elastic"))
        super().__init__(spec, logs, start_method="fork", exit_barrier_timeout=0)
        self.folder = folder
        self.exit_codes: dict[int, int] = {}
        self.seen_alive_s: dict[int, float] = {}
        self.timed_out = False
        self.store: Store | None = None
        self._many = rendezvous.nodes is not None
        self._deadline = deadline
        self._first_death: float | None = None
        self._cancelled = threading.Event()

    @property
    def ranks(self) -> list[int]:
        """The global ranks of this node; empty before the nodes have met."""
        return sorted(self.seen_alive_s)

    def cancel(self) -> None:
        """End the ranks, and start none if that was still to come; may be called from another thread."""
        self._cancelled.set()
        self._end_ranks(patience_s={signal.SIGKILL: _KILL_S})

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, int]:
        if self._cancelled.is_set():
            raise RuntimeError("cancelled before the ranks were started")
        self.store = worker_group.store
        with _without_advice():
            started = super()._start_workers(worker_group)
        self.seen_alive_s = {worker.global_rank: time.time() for worker in worker_group.workers}
        return started

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        """Say whether to go on; called by torch's loop every `_LOOK_EVERY_S`."""
        ranks = [worker.global_rank for worker in worker_group.workers]
        self._look(ranks)
        done = len(self.exit_codes) == len(ranks)
        if done and self._first_death is None:
            return RunResult(WorkerState.SUCCEEDED, return_values=dict.fromkeys(ranks))
        now = time.monotonic()
        if done or self._cancelled.is_set():
            return RunResult(WorkerState.FAILED)
        if self._first_death is not None and now > self._first_death + _LAST_WORDS_S:
            return RunResult(WorkerState.FAILED)
        if now > self._deadline:
            self.timed_out = True
            self._ask_for_stacks()
            return RunResult(WorkerState.FAILED)
        return RunResult(WorkerState.HEALTHY)

    def _look(self, ranks: list[int]) -> None:
        now = time.time()
        for rank, process in zip(ranks, self._processes(), strict=True):
            code = process.poll()
            if code is None:
                self.seen_alive_s[rank] = now
            elif rank not in self.exit_codes:
                self.exit_codes[rank] = code
                if code != 0 or not rank_process.outcome_path(self.folder, rank).exists():
                    self._note_failure()
        if self._many and self._first_death is None and self._another_node_failed():
            self._first_death = time.monotonic()

    def _note_failure(self) -> None:
        if self._first_death is None:
            self._first_death = time.monotonic()
            if self._many and self.store is not None:
                # A rank of another node may never learn it by itself: NCCL waits for a dead peer until its time-out.
                with contextlib.suppress(DistError):
                    self.store.set(_FAILED_KEY, "yes")

    def _another_node_failed(self) -> bool:
        if self.store is None:
            return False
        try:
            return self.store.check([_FAILED_KEY])
        except DistError:  # the launcher that hosts the store is gone
            return True

    def _processes(self) -> list[subprocess.Popen | ForkedRank]:
        handlers = getattr(self._pcontext, "subprocess_handlers", {})
        forked = getattr(self._pcontext, "_pc", None)
        copies: list[subprocess.Popen | ForkedRank] = (
            [] if forked is None else [ForkedRank(process) for process in forked.processes]
        )
        return copies or [handlers[local_rank].proc for local_rank in sorted(handlers)]

    def _ask_for_stacks(self) -> None:
        for process in self._processes():
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, rank_process.STACK_SIGNAL)
        time.sleep(_STACK_S)

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, *more: Any, **named: Any) -> None:
        self._end_ranks(patience_s={signal.SIGTERM: _TERM_S, signal.SIGKILL: _KILL_S})
        super()._shutdown(death_sig, *more, **named)  # torch 2.13 has a time-out here, older ones have none

    def _end_ranks(self, patience_s: Mapping[signal.Signals, float]) -> None:
        """Send the ranks and all they started one signal after the other, and wait after each for them to end."""
        processes = self._processes()
        for sign, wait_s in patience_s.items():
            running = [process for process in processes if process.poll() is None]
            # A rank leads its own process group. What it left behind there has no reason to live on either.
            for process in running if sign == signal.SIGTERM else processes:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    _signal(process, sign)
            end = time.monotonic() + wait_s
            for process in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=max(0.0, end - time.monotonic()))

    def _exit_barrier(self) -> None:
        """Do not wait here: the launchers wait for each other when they exchange their outcomes."""


def _signal(process: subprocess.Popen | ForkedRank, sign: signal.Signals) -> None:
    """Send a signal to a rank's group, or to itself where it has none yet: a copy makes its own as it begins."""
    try:
        os.killpg(process.pid, sign)
    except ProcessLookupError:
        if process.poll() is None:
            os.kill(process.pid, sign)


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keep torch from warning that ranks may be orphaned because it cannot take over the signal handlers.

    It cannot because the agent runs in a thread, and there it must, so that the caller keeps its own handlers; the
    ranks end with that thread by themselves.
    """
    logger = logging.getLogger("torch.distributed.elastic.multiprocessing.api")

    def keep(record: logging.LogRecord) -> bool:
        return "Failed to register signal handlers" not in record.getMessage()

    logger.addFilter(keep)
    try:
        yield
    finally:
        logger.removeFilter(keep)
