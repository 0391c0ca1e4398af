"""The addresses and interfaces of this host, by which other nodes may reach it."""

from __future__ import annotations

import socket

import psutil

# Where the nodes are started by hand: on which port node 0 listens, and what it measures.
PORT_VARIABLE, TOKEN_VARIABLE = "STEPBENCH_RENDEZVOUS_PORT", "STEPBENCH_RENDEZVOUS_TOKEN"


def of_this_host() -> list[str]:
    """Return this host's IPv4 addresses that are up, those of loopback last: several nodes may be on one host."""
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found = [
        each.address
        for name, all_ in psutil.net_if_addrs().items()
        if name in up
        for each in all_
        if each.family == socket.AF_INET
    ]
    return sorted(found, key=lambda address: address.startswith("127."))


def interface(address: str) -> str | None:
    """Return the name of the network interface that has an address."""
    for name, all_ in psutil.net_if_addrs().items():
        if any(each.address == address for each in all_):
            return name
    return None
