"""What a measurement is given and what it gives back; the two ends of every experiment's `measure`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class UnsupportedError(Exception):
    """This device or this software cannot do what the cell asks for; the message is the record's reason."""


@dataclass(frozen=True)
class Setting:
    """What holds for a measurement beside its cell.

    Attributes:
        device: `cuda`, `mps` or `cpu`.
        protocol: `warmup_steps`, `measured_steps`, `seed`, `threads` (a number by now) and what else config.yaml says.
        definition: the other settings that the experiment asked for (`vocabulary`, `size`, …), by name.
        tokens: the prepared token file, or None for synthetic ones.
        artifacts: a stem for files kept beside the record, such as traces; the folder exists.
    """

    device: str
    protocol: dict[str, Any]
    definition: dict[str, Any] = field(default_factory=dict)
    tokens: Path | None = None
    artifacts: Path | None = None


@dataclass(frozen=True)
class Measurement:
    """What was measured; the fields are those of `stepbench.records.Record`."""

    samples: dict[str, Any] = field(default_factory=dict)
    scalars: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
