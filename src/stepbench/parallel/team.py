"""The nodes of a measurement on several: how the others are started, found, and told what to run.

Node 0 measures. It listens on a port that the system gives, starts a follower on each of the other nodes through Slurm
or waits for those that were started by hand, and hands them the call: `launch` runs it on all nodes at once. Followers
try node 0's addresses one after the other, because the name of a host is often one that nobody can resolve, and its
first address one that nobody can reach.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any

import torch
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from stepbench.parallel import addresses
from stepbench.parallel import rank as rank_process
from stepbench.parallel.launch import launch, where
from stepbench.parallel.rendezvous import Nodes

BY_HAND = "by-hand"
FOLLOWER = "stepbench.workloads.follow"
COMES_WITHIN_S = 120.0  # Python and torch from a cold network file system
_CONNECT_S = 2.0
_AGAIN_S = 0.5
# What a step inherits from the job, and not from the step that this process is in.
_KEPT_OF_SLURM = ("SLURM_CONF", "SLURM_JOB_ID", "SLURM_CLUSTER_NAME")


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

    Raises:
        TeamError: there are no other nodes, or they do not come.
    """

    def __init__(self, count: int, device: str, facts: Mapping[str, Any]) -> None:
        self.count = count
        self._facts = dict(facts)
        by_hand = os.environ.get(addresses.PORT_VARIABLE)
        self._others = [] if by_hand else _other_nodes(count)
        self._device = device
        self._token = BY_HAND if by_hand else secrets.token_hex(8)
        self._port = int(by_hand) if by_hand else 0
        self._step: subprocess.Popen[bytes] | None = None
        self.names = ["node 0"] * count

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
        nodes = Nodes(
            self.count, 0, f"{self._address}:{self._port}", self._token, self._store, addresses.interface(self._address)
        )
        return call.run(nodes, deadline_s)

    def silent(self) -> list[str]:
        """Return the names of the nodes that have not said how their ranks ended."""
        with contextlib.suppress(DistError):
            return [
                name
                for rank, name in enumerate(self.names)
                if rank and not self._store.check([f"{self._token}/outcomes/{rank}"])
            ]
        return []

    def _start(self) -> None:
        """Start a follower on each of the other nodes of this Slurm job."""
        others = len(self._others)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in _KEPT_OF_SLURM or not name.startswith(("SLURM_", "SRUN_"))
        }
        command = ["srun", f"--nodes={others}", f"--ntasks={others}", "--ntasks-per-node=1", "--overlap"]
        command += [f"--nodelist={','.join(self._others)}", "--cpu-bind=none", "--mem=0", "--kill-on-bad-exit=1"]
        if self._device == "cuda":  # a step gets the GPUs that it asks for
            command.append(f"--gres=gpu:{torch.cuda.device_count()}")
        found = ",".join(addresses.of_this_host())
        command += [sys.executable, "-m", FOLLOWER, found, str(self._port), self._device, str(self.count), self._token]
        self._step = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL)

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
    found: Sequence[str], port: int, *, rank: int, count: int, facts: Mapping[str, Any], node: str, token: str = BY_HAND
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
    store = TCPStore(address, port, is_master=False, timeout=timedelta(seconds=COMES_WITHIN_S), wait_for_workers=False)
    came = {"node": node, "address": address, "count": count, "facts": dict(facts)}
    store.set(_key(token, f"came/{rank}"), json.dumps(came))
    try:
        told = json.loads(store.get(_key(token, "call")))
    except DistError:
        raise TeamError(f"{address} port {port} belongs to another measurement, or node 0 has given up") from None
    deadline_s = told.pop("deadline_s")
    call = Call(**{**told, "function": rank_process.function(told["function"])})
    call.run(Nodes(count, rank, f"{address}:{port}", token, store, addresses.interface(mine)), deadline_s)


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


def _other_nodes(count: int) -> list[str]:
    """Return the names of the other nodes of the Slurm job that this process is in.

    Raises:
        TeamError: it is in none, or in one with too few nodes.
    """
    listed = os.environ.get("SLURM_JOB_NODELIST")
    if listed is None or "SLURM_JOB_ID" not in os.environ or shutil.which("srun") is None:
        raise TeamError(
            f"{count} nodes need a Slurm job of {count} nodes, or a command on each: "
            "`stepbench measure … --rendezvous HOST:PORT --node-rank RANK`"
        )
    done = subprocess.run(["scontrol", "show", "hostnames", listed], capture_output=True, text=True, check=False)
    names, me = done.stdout.split(), os.environ.get("SLURMD_NODENAME")
    others = [name for name in names if name != me]
    if len(others) + 1 < count:
        raise TeamError(f"{count} nodes need a Slurm job of {count} nodes, got {len(names)} ({listed})")
    return others[: count - 1]


def _key(token: str, name: str) -> str:
    return f"team/{token}/{name}"
