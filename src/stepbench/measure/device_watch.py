"""What a cell's own GPUs did while it ran, sampled by its parent: clocks, throttling, power, temperature, energy.

Before and after a measurement a GPU is at rest, so that its reasons for low clocks are those of an idle one.
"""

from __future__ import annotations

import statistics
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from stepbench.measure import nvml
from stepbench.measure.devices import Device

INTERVAL_S = 0.5
BUSY = 0.1  # utilisation from which a sample counts: the rest of the cell is Python and the compiler
IDLE = 0x1  # NVML's bit for low clocks because there is nothing to do


class DeviceWatch:
    """Samples GPUs inside a `with` block, in a thread; a GPU that NVML does not know gives no samples.

    Args:
        devices: those of the cell.
        interval_s: time between two samples.
    """

    def __init__(self, devices: Sequence[Device], *, interval_s: float = INTERVAL_S) -> None:
        self._devices, self._interval_s = tuple(devices), interval_s
        self._samples: list[list[dict[str, Any]]] = [[] for _ in self._devices]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="device watch", daemon=True)

    def __enter__(self) -> Self:
        """Start sampling."""
        if self._devices:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Stop; there is at least one sample of each device."""
        self._over.set()
        if self._devices:
            self._thread.join()

    def found(self) -> list[dict[str, Any]]:
        """Return one mapping for each device.

        Returns:
            `samples` and `busy_samples`: how many; of the busy ones the mean `sm_clock_hz` and `power_watts`, and
            `throttle_reasons_bitmask`, every reason that was seen; of all the highest `temperature_celsius`; and
            `energy_joules` from the first to the last. None where NVML does not say.
        """
        return [self._summary(each) for each in self._samples]

    def _summary(self, samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
        busy = [each for each in samples if _is_busy(each)]
        reasons = [each["throttle_reasons_bitmask"] for each in busy if each["throttle_reasons_bitmask"] is not None]
        together = 0
        for each in reasons:
            together |= each
        energy = [each["energy_joules"] for each in samples if each["energy_joules"] is not None]
        return {
            "samples": len(samples),
            "busy_samples": len(busy),
            "sm_clock_hz": _mean(busy, "sm_clock_hz"),
            "power_watts": _mean(busy, "power_watts"),
            "throttle_reasons_bitmask": together & ~IDLE if reasons else None,
            "temperature_celsius": max(
                (each["temperature_celsius"] for each in samples if each["temperature_celsius"] is not None),
                default=None,
            ),
            "energy_joules": energy[-1] - energy[0] if energy else None,
        }

    def _sample(self) -> None:
        with nvml.opened():  # which keeps NVML from being set up again for each sample
            over = False
            while not over:
                for device, samples in zip(self._devices, self._samples, strict=True):
                    samples.append(nvml.state(device.uuid))
                over = self._over.wait(self._interval_s)


def _is_busy(sample: dict[str, Any]) -> bool:
    """Return whether a device is at work; of a slice of one (MIG) only the whole one's clocks tell."""
    if (utilisation := sample["utilisation_ratio"]) is not None:
        return bool(utilisation >= BUSY)
    reasons = sample["throttle_reasons_bitmask"]
    return reasons is not None and not reasons & IDLE


def _mean(samples: Sequence[dict[str, Any]], key: str) -> float | None:
    values = [each[key] for each in samples if each[key] is not None]
    return statistics.fmean(values) if values else None
