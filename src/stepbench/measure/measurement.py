"""What a measurement is given and what it gives back; the two ends of every experiment's `measure`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class UnsupportedError(Exception):
    """This device or this software cannot do what the cell asks for; the message is the record's reason."""

    kind = "unsupported"


class PredictedOutOfMemoryError(Exception):
    """A cell was not started, because it is predicted not to fit; the message is the record's reason."""

    kind = "predicted_oom"


class WrongResultError(ArithmeticError):
    """A check found that what was computed is wrong, so its time means nothing; the message is the record's reason."""

    kind = "wrong_result"


@dataclass(frozen=True)
class Setting:
    """What holds for a measurement beside its cell.

    Attributes:
        device: `cuda`, `mps` or `cpu`.
        protocol: `warmup_steps`, `measured_steps`, `seed`, `threads` (a number by now) and what else config.yaml says.
        definition: the other settings that the experiment asked for (`vocabulary`, `size`, …), by name.
        tokens: the prepared token file, or None for synthetic ones.
        shards: the folder of the data set that the cell reads from disk, or None.
        artifacts: a stem for files kept beside the record, such as traces; the folder exists.
        trust_prediction: whether a cell that is predicted not to fit on the device is not even started.
        deadline: when the measuring process will be ended, by `time.monotonic()`, which all processes of a host share;
            None where nobody does.
        may_fork: whether this process has only imported torch so far, so that ranks may begin as copies of it.
    """

    device: str
    protocol: dict[str, Any]
    definition: dict[str, Any] = field(default_factory=dict)
    tokens: Path | None = None
    shards: Path | None = None
    artifacts: Path | None = None
    trust_prediction: bool = True
    deadline: float | None = None
    may_fork: bool = False

    def plain(self) -> dict[str, Any]:
        """Return what another process needs to measure in the same setting, as JSON can hold it."""
        return {
            "device": self.device,
            "protocol": self.protocol,
            "definition": self.definition,
            "shards": None if self.shards is None else str(self.shards),
        }


@dataclass(frozen=True)
class Measurement:
    """What was measured; the fields are those of `stepbench.pipeline.records.Record`."""

    samples: dict[str, Any] = field(default_factory=dict)
    scalars: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
