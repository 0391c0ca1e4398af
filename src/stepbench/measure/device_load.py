"""The load of a device during a measurement, sampled in the background a few times a second."""

from __future__ import annotations

import statistics
import threading
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from stepbench.measure import environment

INTERVAL_S = 0.2
KEYS = ("utilisation_ratio", "power_watts", "sm_clock_hz")


class DeviceLoad:
    """Samples a device's load inside a `with` block.

    For a GPU: utilisation, power and SM clock through NVML. For a CPU: the utilisation of all cores by all processes.

    Args:
        device: `cuda`; for any other device the CPU is sampled.
        position: index among the GPUs that this process may use.
        interval_s: time between two samples.
    """

    def __init__(self, device: str, *, position: int = 0, interval_s: float = INTERVAL_S) -> None:
        self._device, self._position, self._interval_s = device, position, interval_s
        self._samples: list[dict[str, float | None]] = []
        self._over = threading.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="device load")

    def __enter__(self) -> Self:
        """Start sampling."""
        environment.activity(self._device, self._position)  # the first reading's setup must not delay a sample
        self._sampled = self._thread.submit(self._sample)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        """Stop; there is at least one sample. Raises the exception of a failed reading, if any."""
        self._over.set()
        self._thread.shutdown()
        if error is None:
            self._sampled.result()

    def scalars(self) -> dict[str, Any]:
        """Return the mean of each of `KEYS`, None where the device does not report it, and `load_samples`."""
        found: dict[str, Any] = {}
        for key in KEYS:
            values = [value for sample in self._samples if (value := sample[key]) is not None]
            found[key] = statistics.fmean(values) if values else None
        return {**found, "load_samples": len(self._samples)}

    def _sample(self) -> None:
        # psutil returns a CPU's utilisation since the same thread's last call, so the first call only sets the start. A
        # last sample over a very short time would count as much as the others, so it is dropped if there are any.
        environment.activity(self._device, self._position)
        over = False
        while not over:
            over = self._over.wait(self._interval_s)
            if not over or not self._samples:
                self._samples.append(environment.activity(self._device, self._position))
