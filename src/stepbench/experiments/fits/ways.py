"""Points of the fits experiment: predicted ones as functions of batch and context, and edges that were tried."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepbench.measure import fit
from stepbench.measure.envelope import Envelope, Piece
from stepbench.reporting.frames import Results
from stepbench.reporting.points import Group

CONTEXT, BATCH = 1024, 1  # at which tables give the largest batch, and the largest context
AXES = ("precision", "parameter_dtype", "attention", "head", "groups", "optimizer", "ranks")
GIB = 2**30
HEADROOM = f"Not counted are {fit.HEADROOM_BYTES / GIB:.2f} GiB of a card, which CUDA's context and the allocator take."


@dataclass(frozen=True)
class Way:
    """One model and one way to train it.

    Attributes:
        group: its point of the grid.
        envelope: its predicted peak.
    """

    group: Group
    envelope: Envelope

    @property
    def peak_bytes(self) -> int:
        """The predicted peak at `BATCH` and `CONTEXT`."""
        return self.envelope.peak_bytes(BATCH, CONTEXT)


def predicted(results: Results) -> list[Way]:
    """Return what was predicted, in the grid's order."""
    found = []
    for group in results.groups():
        if group.point["source"] == "predicted" and group.records:
            held = group.records[0].details
            pieces = (
                Piece(each["most_tokens"], tuple(tuple(map(float, line)) for line in each["coefficients"]))
                for each in held["pieces"]
            )
            found.append(Way(group, Envelope(tuple(pieces), held["most_context"])))
    return found


def edges(results: Results) -> list[Group]:
    """Return the points whose edge was tried, whatever came of it."""
    return [group for group in results.groups() if group.point["source"] == "measured"]


def cards(settings: Mapping[str, Any]) -> dict[str, int]:
    """Return the bytes of each card of config.yaml that a step may take, the smallest first."""
    found = {name: fit.usable_bytes(round(gib * GIB)) for name, gib in settings.get("cards", {}).items()}
    return dict(sorted(found.items(), key=lambda each: each[1]))


def device(results: Results) -> dict[str, int]:
    """Return the memory of this machine's GPU that a step may take, by its name; empty for a CPU."""
    records = [record for group in results.groups() for record in group.records]
    environment = records[0].environment if records else {}
    memory_bytes = environment.get("device_memory_bytes")
    if environment.get("device") != "cuda" or not memory_bytes:
        return {}
    return {str(environment["device_name"]): fit.usable_bytes(int(memory_bytes))}
