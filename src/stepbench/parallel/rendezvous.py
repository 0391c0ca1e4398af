"""How the launchers of a job find each other: a fixed number of nodes around one store.

Torch's own dynamic rendezvous lets nodes come and go, restarts everything when one more knocks, and asks the resolver
for this machine's name. A measurement wants none of it: its nodes are known, on one node nothing but loopback is used,
and no port is fixed.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import timedelta

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousInfo, RendezvousStoreInfo

_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Nodes:
    """The machines of a job that runs on several; one launcher is started on each, with the same arguments but `rank`.

    Attributes:
        count: how many there are, at least 2.
        rank: which one this is; 0 hosts the store.
        endpoint: `host:port` of node 0, reachable from all.
        job: a name that launchers of another job do not use, so that a leftover of it cannot join.
        store: one at `endpoint` that is open already; None to open one there.
        interface: the network interface on which ranks talk through Gloo; None leaves it to the resolver.
    """

    count: int
    rank: int
    endpoint: str
    job: str = "stepbench"
    store: TCPStore | None = None
    interface: str | None = None

    def __post_init__(self) -> None:
        if self.count < 2:
            raise ValueError(f"`count` must be at least 2 (leave `nodes` out for one), got {self.count}")
        if not 0 <= self.rank < self.count:
            raise ValueError(f"`rank` must be from 0 to {self.count - 1}, got {self.rank}")
        host, _, port = self.endpoint.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"`endpoint` must be host:port, got {self.endpoint!r}")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the store."""
        host, _, port = self.endpoint.rpartition(":")
        return host.strip("[]"), int(port)


class FixedRendezvous(RendezvousHandler):
    """The meeting of a known number of launchers.

    Args:
        nodes: the machines, or None for this one alone, with a store on a free port of the loopback interface.
        deadline_s: how long the others may take to come.
    """

    def __init__(self, nodes: Nodes | None, deadline_s: float) -> None:
        self.nodes = nodes
        self._timeout = timedelta(seconds=deadline_s)
        self._store: TCPStore | None = None

    def next_rendezvous(self) -> RendezvousInfo:
        """Host or find the store, and return once all nodes have come to it.

        Raises:
            torch.distributed.DistStoreError: a node did not come in time.
        """
        if self.nodes is None:
            self._store, host, rank, count = _loopback_store(self._timeout), _LOOPBACK, 0, 1
        else:
            (host, port), rank, count = self.nodes.address, self.nodes.rank, self.nodes.count
            self._store = self.nodes.store or TCPStore(
                host, port, is_master=rank == 0, timeout=self._timeout, wait_for_workers=False
            )
        store: Store = PrefixStore(self.get_run_id(), self._store)
        store.set(f"here/{rank}", "yes")
        store.wait([f"here/{other}" for other in range(count)], self._timeout)
        return RendezvousInfo(store, rank, count, RendezvousStoreInfo(host, self._store.port))

    @property
    def use_agent_store(self) -> bool:
        """Ranks meet at the launcher's store and host none of their own."""
        return True

    def get_backend(self) -> str:
        """Return the kind of rendezvous, for torch's logs."""
        return "fixed"

    def get_run_id(self) -> str:
        """Return the name under which this job's keys stand in the store."""
        return self.nodes.job if self.nodes else "stepbench"

    def num_nodes_waiting(self) -> int:
        """Return 0: nobody else is let in."""
        return 0

    def is_closed(self) -> bool:
        """Return False: it ends with the launcher."""
        return False

    def set_closed(self) -> None:
        """Do nothing: it ends with the launcher."""

    def shutdown(self) -> bool:
        """Let go of the store."""
        self._store = None
        return True


def _loopback_store(timeout: timedelta) -> TCPStore:
    """Return a store on a free port that only this machine can reach; by itself TCPStore listens on all interfaces."""
    with socket.socket() as listener:
        listener.bind((_LOOPBACK, 0))
        listener.listen(socket.SOMAXCONN)
        port = listener.getsockname()[1]
        return TCPStore(
            _LOOPBACK, port, is_master=True, timeout=timeout, wait_for_workers=False, master_listen_fd=listener.detach()
        )
