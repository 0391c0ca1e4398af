"""What a machine is, as far as paths, grids and fingerprints depend on it: this one, or one that described itself.

On a cluster the machine that reads the Snakefile is not the one that measures. `stepbench describe` writes what a node
is to `machines/<name>.json`; with `machine: <name>` in config.yaml everything but measuring is done from that file, and
before it measures, the measuring process checks that it is on such a machine.
"""

from __future__ import annotations

import datetime
import json
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import psutil

from stepbench.measure import devices, environment, interconnect, software
from stepbench.pipeline.config import ConfigError
from stepbench.process import storage

FOLDER = Path("machines")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}")
COMPARED = ("device", "device_names", "capabilities", "driver", "software", "cpu_cores")


@dataclass(frozen=True)
class Machine:
    """One machine.

    Attributes:
        name: of the folder under results/.
        device: `cuda`, `mps` or `cpu`.
        device_names: the hardware's name of each device; of a CPU one.
        capabilities: CUDA's compute capability of each GPU, such as `9.0`; None for one without.
        device_memory_bytes: of the smallest device; None if the devices share the host's.
        cpu: its model.
        cpu_cores: physical ones that a measurement may use.
        host_memory_bytes: of the host.
        driver: NVIDIA's, or None.
        software: versions of torch, triton, cuda and python.
        os: name and version of the system.
        interconnect: see `stepbench.measure.interconnect`; empty for this machine, where nobody asks.
        described: when, ISO 8601 in UTC; empty for this machine.
    """

    name: str
    device: str
    device_names: tuple[str, ...]
    capabilities: tuple[str | None, ...]
    device_memory_bytes: int | None
    cpu: str
    cpu_cores: int
    host_memory_bytes: int
    driver: str | None
    software: Mapping[str, str | None]
    os: str
    interconnect: Mapping[str, Any] = field(default_factory=dict)
    described: str = ""

    @property
    def device_name(self) -> str:
        """The name of the devices; if they differ, each kind once."""
        return ", ".join(dict.fromkeys(self.device_names))

    @property
    def device_count(self) -> int:
        """The number of devices; of a CPU, its cores."""
        return self.cpu_cores if self.device == "cpu" else len(self.device_names)

    def differences(self, other: Machine) -> list[str]:
        """Return in what another machine is not this one, one clause for each value that numbers depend on."""
        mine, theirs = ({key: getattr(each, key) for key in COMPARED} for each in (self, other))
        mine |= mine.pop("software")
        theirs |= theirs.pop("software")
        if self.device != "cpu":  # the host's cores are the protocol's threads, and few numbers of a GPU depend on them
            mine["cpu_cores"] = theirs["cpu_cores"] = None
        return [
            f"`{key}` is {_short(theirs.get(key))} instead of {_short(mine[key])}"
            for key in mine
            if mine[key] != theirs.get(key)
        ]


def here(device: str = "auto", name: str = "auto") -> Machine:
    """Return this machine.

    Args:
        device: what is measured: auto, or one that is there.
        name: of the folder under results/; auto names it after the hardware.

    Raises:
        ValueError: there is no such device.
    """
    device = devices.find(device)
    used = environment.used(device)
    memory = [each.memory_bytes for each in used if each.memory_bytes is not None]
    return Machine(
        name=environment.machine_name(device) if name == "auto" else name,
        device=device,
        device_names=environment.device_names(device),
        capabilities=tuple(each.capability for each in used),
        device_memory_bytes=min(memory, default=None),
        cpu=environment.device_name("cpu"),
        cpu_cores=environment.cores(),
        host_memory_bytes=psutil.virtual_memory().total,
        driver=devices.driver(),
        software=software.versions(),
        os=platform.platform(),
    )


def found_instead(wanted: Machine) -> list[str]:
    """Return in what this machine is not `wanted`, a described one; empty if that is what it is."""
    if not wanted.described:
        return []
    try:
        found = here(wanted.device)
    except ValueError:
        found = here()
    return wanted.differences(found)


def describe(root: Path, device: str = "auto", name: str = "auto") -> Path:
    """Write what this machine is to `machines/<name>.json` in `root`, and return that path.

    Raises:
        ValueError: there is no such device, or the name cannot be a folder's.
        OSError: the file cannot be written.
    """
    if not NAME.fullmatch(name):
        told = "at most 80 lower-case letters, digits, '.', '_' and '-', beginning with a letter or a digit"
        raise ValueError(f"`name` must be auto or {told}, got {name!r}")
    found = asdict(here(device, name))
    found["interconnect"] = interconnect.describe(found["device"])
    found["described"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    path = file_of(root, found["name"])
    path.parent.mkdir(exist_ok=True)
    storage.write_atomically(path, json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    return path


def file_of(root: Path, name: str) -> Path:
    """Return the file of a described machine, whether or not it exists."""
    return root / FOLDER / f"{name}.json"


def described(root: Path, name: str) -> Machine | None:
    """Return the machine of this name that has described itself, or None.

    Raises:
        stepbench.pipeline.config.ConfigError: its file is not one that `stepbench describe` wrote.
    """
    path = file_of(root, name)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _unusable(path, f"it is not JSON ({error})") from None
    wanted = {each.name for each in fields(Machine)}
    if not isinstance(found, dict) or set(found) != wanted:
        lacking = sorted(wanted ^ set(found if isinstance(found, dict) else ()))
        raise _unusable(path, f"it lacks or does not know {', '.join(lacking)}")
    if found["name"] != name:
        raise _unusable(path, f"it describes {found['name']!r}")
    if found["device"] not in devices.KINDS or not found["device_names"]:
        raise _unusable(path, f"its device is {found['device']!r} ({found['device_names']!r})")
    if not isinstance(found["capabilities"], list):
        raise _unusable(path, f"its capabilities are {found['capabilities']!r}")
    return Machine(**{**found, **{key: tuple(found[key]) for key in ("device_names", "capabilities")}})


def _unusable(path: Path, why: str) -> ConfigError:
    return ConfigError(f"{path} must be a file of `stepbench describe`: {why}; run that command there again")


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        kinds = dict.fromkeys(value)
        return ", ".join(f"{value.count(kind)} × {kind}" for kind in kinds) or "none"
    return "none" if value is None else str(value)
