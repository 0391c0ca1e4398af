"""The network of a projection, as config.yaml states it, and the cost of a ring of ranks on it.

Source: Thakur et al. 2005, Optimization of Collective Communication Operations in MPICH (the ring's cost).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MICROSECOND, GIGABYTE = 1e-6, 1e9


@dataclass(frozen=True)
class Link:
    """Between two ranks: latency of a message, and bytes per second in one direction."""

    latency_s: float
    bytes_per_s: float


@dataclass(frozen=True)
class Network:
    """Nodes with a number of ranks each; the slowest link of a ring decides."""

    ranks_per_node: int
    intra_node: Link
    inter_node: Link

    @classmethod
    def of(cls, settings: Mapping[str, Any] | None) -> Network | None:
        """Return what `network` of config.yaml says, or None where it says nothing."""
        if settings is None:
            return None
        links = (
            Link(settings[name]["latency_us"] * MICROSECOND, settings[name]["bandwidth_gb_per_s"] * GIGABYTE)
            for name in ("intra_node", "inter_node")
        )
        return cls(settings["ranks_per_node"], *links)

    def link(self, ranks: int, *, across_nodes: bool = False) -> Link:
        """Return the slowest link of a ring; ranks fill one node before the next, unless they are one a node."""
        return self.inter_node if across_nodes or ranks > self.ranks_per_node else self.intra_node

    def half_ring_s(self, ranks: int, total_bytes: float, *, across_nodes: bool = False) -> float:
        """Return the time of an all-gather or a reduce-scatter of `payload_bytes` bytes in total."""
        link = self.link(ranks, across_nodes=across_nodes)
        return (ranks - 1) * (link.latency_s + total_bytes / ranks / link.bytes_per_s)

    def ring_s(self, ranks: int, total_bytes: float, *, across_nodes: bool = False) -> float:
        """Return the time of an all-reduce: a reduce-scatter and an all-gather."""
        return 2 * self.half_ring_s(ranks, total_bytes, across_nodes=across_nodes)

    def in_words(self) -> str:
        """Return one sentence."""
        parts = [
            f"{1e6 * each.latency_s:g} µs and {each.bytes_per_s / GIGABYTE:g} GB/s {where}"
            for each, where in ((self.intra_node, "inside a node"), (self.inter_node, "between nodes"))
        ]
        return f"Assumed network (that of config.yaml): {self.ranks_per_node} ranks per node, " + (
            f"{parts[0]}, {parts[1]}."
        )
