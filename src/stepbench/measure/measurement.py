"""The input and the output of every experiment's `measure`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


class UnsupportedError(Exception):
    """This device or software does not support the cell; the message becomes the record's reason."""

    kind = "unsupported"


class PredictedOutOfMemoryError(Exception):
    """A cell was not started because its predicted memory does not fit; the message becomes the record's reason."""

    kind = "predicted_oom"


class WrongResultError(ArithmeticError):
    """A check found a wrong result, so its time is meaningless; the message becomes the record's reason."""

    kind = "wrong_result"


@dataclass(frozen=True)
class Setting:
    """The conditions of a measurement, apart from its cell.

    Attributes:
        device: `cuda`, `mps` or `cpu`.
        protocol: `warmup_steps`, `measured_steps`, `seed`, `threads` (a number) and further keys of config.yaml.
        definition: the other settings that the experiment lists in `SETTINGS` (`vocabulary`, `size`, …), by name.
        tokens: the prepared token file, or None for synthetic tokens.
        shards: the folder of the data set that the cell reads from disk, or None.
        artifacts: stem of the paths of files stored next to the record, such as traces; the folder exists.
        trust_prediction: whether a cell whose predicted memory does not fit on the device is not started.
        deadline: when the measuring process will be killed, in seconds of `time.monotonic()`, which all processes of a
            host share; None for no limit.
        may_fork: whether this process has only imported torch so far, so that ranks may start as copies of it.
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

    def kernel(self, name: str) -> str:
        """Return what a cell's attention names: an implementation, or `path.py:function` of the user's own kernel."""
        if "kernel" in self.definition:
            return str(self.definition["kernel"]["function"])
        return str(self.definition.get("kernels", {}).get(name, {}).get("function", name))

    def plain(self) -> dict[str, Any]:
        """Return the values that another process needs to measure under the same conditions, as JSON values."""
        return {
            "device": self.device,
            "protocol": self.protocol,
            "definition": self.definition,
            "shards": None if self.shards is None else str(self.shards),
        }


@dataclass(frozen=True)
class Measurement:
    """The result of a measurement.

    Attributes:
        samples: name with unit (`step_s`) -> the raw values in run order, or one list per rank.
        scalars: name with unit -> one value.
        details: JSON values for tables and figures, such as a timeline.
        protocol: what was done, in addition to what was asked for (the clock, the loops, …).
    """

    samples: dict[str, Any] = field(default_factory=dict)
    scalars: dict[str, Any] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
