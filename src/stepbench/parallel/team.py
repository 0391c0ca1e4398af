"""The nodes of a measurement on several: how the others are started, found, and told what to run.

Node 0 measures. It listens on a port that the system gives, starts a follower on each of the other nodes through Slurm
or waits for those that were started by hand, and hands them the call: `launch` runs it on all nodes at once. Followers
try node 0's addresses one after the other, because the name of a host is often one that nobody can resolve, and its
first address one that nobody can reach.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from stepbench.parallel import addresses, slurm
from stepbench.parallel import rank as rank_process
from stepbench.parallel.launch import launch, where
from stepbench.parallel.rendezvous import Nodes

FOLLOWER = "stepbench.workloads.follow"
COMES_WITHIN_S = 120.0  # Python and torch from a cold network file system
_CONNECT_S = 2.0
_AGAIN_S = 0.5
_WHOSE = "team/whose"  # the key of the token


class TeamError(RuntimeError):
    """The nodes did not come together; the message says which one and why."""

    kind = "rank_failed"


class DifferentNodeError(TeamError):
    """A node is another machine than node 0; the message says in what."""

    kind = "landed_elsewhere"


@dataclass(frozen=True)
class Call:
    """What all nodes run: `function` in `ranks` processes on each, and the rest of `launch`'s arguments."""

    function: Callable[..., Any]
    ranks: int
    arguments: Mapping[str, Any]
    backend: str
    threads: int

    def run(self, nodes: Nodes | None, deadline_s: float, *, fork: bool = False) -> list[Any]:
        """Run this node's part and return what all ranks of all nodes returned."""
        return launch(
            self.function,
            self.ranks,
            arguments=self.arguments,
            backend=self.backend,
            deadline_s=deadline_s,
            threads=self.threads,
            nodes=nodes,
            fork=fork,
        )


class Team:
    """Node 0's view of all nodes, while a measurement runs on them; use it as a context.

    Args:
        count: how many nodes, at least 2.
        device: what is measured, `cuda` or `cpu`.
        facts: what this node is, as values of JSON by name; the others must be the same.
        node: this node's name.

    Attributes:
        names: of all nodes, in their order; those of the others are known once they have come.

    Raises:
        TeamError: there are no other nodes, or they do not come.
    """

    def __init__(self, count: int, device: str, facts: Mapping[str, Any], node: str = "node 0") -> None:
        self.count = count
        self._facts = dict(facts)
        by_hand = os.environ.get(addresses.PORT_VARIABLE)
        try:
            self._others = [] if by_hand else slurm.other_nodes(count)
        except slurm.SlurmError as error:
            raise TeamError(str(error)) from None
        self._device = device
        self._token = os.environ.get(addresses.TOKEN_VARIABLE, "") if by_hand else secrets.token_hex(8)
        self._port = int(by_hand) if by_hand else 0
        self._step: subprocess.Popen[bytes] | None = None
        self.names = [node, *(f"node {rank}" for rank in range(1, count))]

    def __enter__(self) -> Team:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", self._port))
        except OSError as error:
            listener.close()
            raise TeamError(f"port {self._port} of this node cannot be used ({error.strerror}); name another") from None
        listener.listen(socket.SOMAXCONN)
        self._port = listener.getsockname()[1]
        self._store = TCPStore(
            "127.0.0.1",
            self._port,
            is_master=True,
            timeout=timedelta(seconds=COMES_WITHIN_S),
            wait_for_workers=False,
            master_listen_fd=listener.detach(),
        )
        self._store.set(_WHOSE, self._token)
        try:
            if self._others:
                self._start()
            self._meet()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def call(self, call: Call, deadline_s: float) -> list[Any]:
        """Have all nodes run a call, once; return what all ranks returned, in rank order.

        Raises:
            stepbench.parallel.outcome.RankError: a rank failed, or a node fell silent, which the message names.
        """
        told = {
            "function": where(call.function),
            "ranks": call.ranks,
            "arguments": call.arguments,
            "backend": call.backend,
            "threads": call.threads,
            "deadline_s": deadline_s,
        }
        self._store.set(_key(self._token, "call"), json.dumps(told))
        interface = addresses.interface(self._address)
        endpoint = f"{self._address}:{self._port}"
        nodes = Nodes(self.count, 0, endpoint, _job(self._token), self._store, interface)
        return call.run(nodes, deadline_s)

    def silent(self) -> list[str]:
        """Return the names of the nodes that have not said how their ranks ended."""
        with contextlib.suppress(DistError):
            return [
                name
                for rank, name in enumerate(self.names)
                if rank and not self._store.check([f"{_job(self._token)}/outcomes/{rank}"])
            ]
        return []

    def _start(self) -> None:
        """Start a follower on each of the other nodes of this Slurm job."""
        found = ",".join(addresses.of_this_host())
        command = [sys.executable, "-m", FOLLOWER, found, str(self._port), self._device, str(self.count), self._token]
        gpus = torch.cuda.device_count() if self._device == "cuda" else 0
        self._step = slurm.start(self._others, command, gpus=gpus)

    def _meet(self) -> None:
        end = time.monotonic() + COMES_WITHIN_S
        self._address = ""
        for rank in range(1, self.count):
            came = json.loads(self._wait_for(rank, end))
            self.names[rank] = came["node"]
            if came["count"] != self.count:
                raise TeamError(f"node {came['node']} was started for {came['count']} nodes, not {self.count}")
            if different := [key for key, value in self._facts.items() if came["facts"].get(key) != value]:
                told = "; ".join(
                    f"`{key}` is {came['facts'].get(key)} there and {self._facts[key]} here" for key in different
                )
                raise DifferentNodeError(f"node {came['node']} is another machine than this one: {told}")
            self._address = self._address or came["address"]

    def _wait_for(self, rank: int, end: float) -> bytes:
        key = _key(self._token, f"came/{rank}")
        while not self._store.check([key]):
            who = self._others[rank - 1] if self._others else f"node {rank}"
            if self._step is not None and (code := self._step.poll()) not in (None, 0):
                raise TeamError(f"srun could not run on {who} and ended with status {code}; the cell's log says why")
            if time.monotonic() > end:
                here = ", ".join(addresses.of_this_host())
                raise TeamError(f"{who} did not come to {here} port {self._port} in {COMES_WITHIN_S:g} s")
            time.sleep(0.05)
        return bytes(self._store.get(key))

    def _stop(self) -> None:
        if self._step is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._step.wait(_CONNECT_S)
            self._step.kill()
            self._step.wait()


def follow(
    found: Sequence[str], port: int, *, rank: int, count: int, facts: Mapping[str, Any], node: str, token: str
) -> None:
    """Come to node 0, and run with it what it calls.

    Args:
        found: addresses or names of node 0, of which one is reachable.
        port: on which it listens.
        rank: of this node, from 1.
        count: of nodes.
        facts: what this node is; see `Team`.
        node: this node's name.
        token: of the measurement, so that a leftover of another one cannot join.

    Raises:
        TeamError: nobody listens, or who listens is not waiting for this node.
        stepbench.parallel.outcome.RankError: a rank failed.
    """
    address, mine = _reach(found, port)
    store = _open(address, port)
    came = {"node": node, "address": address, "count": count, "facts": dict(facts)}
    try:
        if (theirs := store.get(_WHOSE).decode()) != token:
            raise TeamError(f"{address} port {port} belongs to another measurement: {theirs}, and not {token}")
        store.set(_key(token, f"came/{rank}"), json.dumps(came))
        told = json.loads(store.get(_key(token, "call")))
    except DistError:
        raise TeamError(f"{address} port {port} is no node that measures {token}, or it has given up") from None
    deadline_s = told.pop("deadline_s")
    call = Call(**{**told, "function": rank_process.function(told["function"])})
    call.run(Nodes(count, rank, f"{address}:{port}", _job(token), store, addresses.interface(mine)), deadline_s)


def _reach(found: Sequence[str], port: int) -> tuple[str, str]:
    """Return the first address of node 0 that answers, and this host's own address on the way there."""
    end = time.monotonic() + COMES_WITHIN_S
    reasons: dict[str, str] = {}
    while time.monotonic() < end:
        for address in found:
            try:
                with socket.create_connection((address, port), timeout=_CONNECT_S) as connection:
                    return address, str(connection.getsockname()[0])
            except OSError as error:
                reasons[address] = error.strerror or str(error)
        time.sleep(_AGAIN_S)
    told = "; ".join(f"{address}: {reason}" for address, reason in reasons.items())
    raise TeamError(f"nobody answers on port {port} of node 0 within {COMES_WITHIN_S:g} s ({told})")


def _open(address: str, port: int) -> TCPStore:
    """Return node 0's store.

    In a thread, because torch waits without end for one who takes the connection and never answers.

    Raises:
        TeamError: who listens there is no store.
    """
    made: list[TCPStore] = []

    def connect() -> None:
        with contextlib.suppress(DistError):
            waits = timedelta(seconds=COMES_WITHIN_S)
            made.append(TCPStore(address, port, is_master=False, timeout=waits, wait_for_workers=False))

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(COMES_WITHIN_S)
    if not made:
        raise TeamError(f"who listens on {address} port {port} does not answer as node 0 does; name another port")
    return made[0]


def _job(token: str) -> str:
    """Return a name of the measurement that may be a file's, for torch makes a folder of it."""
    return hashlib.sha256(token.encode()).hexdigest()[:16]


def _key(token: str, name: str) -> str:
    return f"team/{token}/{name}"
