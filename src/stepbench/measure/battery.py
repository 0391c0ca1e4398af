"""Whether this machine runs on its battery, which makes laptops lower the clocks of CPU and GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

SUPPLIES = Path("/sys/class/power_supply")
OUTSIDE = ("Mains", "USB", "Wireless")
DISCHARGING, OTHERS = "Discharging", ("Charging", "Full", "Not charging")


def in_use(supplies: Path = SUPPLIES) -> bool | None:
    """Return whether the machine runs on its battery; None where it has none, or does not say.

    Args:
        supplies: Linux' folder of power supplies. Elsewhere psutil is asked.
    """
    if sys.platform != "linux":
        return _by_psutil()
    batteries, online = [], []
    for folder in sorted(supplies.glob("*")):
        kind = _read(folder / "type")
        if kind == "Battery" and _read(folder / "scope") != "Device":  # of which a mouse or a pen has one
            batteries.append(_read(folder / "status"))
        elif kind in OUTSIDE:
            online.append(_read(folder / "online"))
    if not batteries:
        return None
    if DISCHARGING in batteries:
        return True
    if any(state not in (None, "0") for state in online) or any(state in OTHERS for state in batteries):
        return False
    return True if "0" in online else None


def _by_psutil() -> bool | None:
    try:
        battery = psutil.sensors_battery()
    except (AttributeError, OSError, NotImplementedError):
        return None
    return None if battery is None or battery.power_plugged is None else not battery.power_plugged


def _read(file: Path) -> str | None:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
