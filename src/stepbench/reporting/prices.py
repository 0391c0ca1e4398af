"""What an hour of a device costs: rented, or bought and used for a while."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Price:
    """What an hour of one device costs while it works.

    Attributes:
        per_device_hour: in `currency`; of a bought device its share of the purchase, and energy.
        currency: such as `USD`.
        date: when it was asked for; text.
        source: who asked it.
        purchase: of a bought device, with what it needs around it; None where it is rented.
        energy_per_hour: of a bought device, in `currency`.
    """

    per_device_hour: float
    currency: str
    date: str = ""
    source: str = ""
    purchase: float | None = None
    energy_per_hour: float = 0.0

    @property
    def origin(self) -> str:
        """Its date and its source, as far as they are known."""
        return ", ".join(filter(None, (self.date, self.source)))

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Price:
        """Return the price that an entry of `prices` in config.yaml gives."""
        about = {key: section[key] for key in ("currency", "date", "source")}
        if "purchase" not in section:
            return cls(section["per_device_hour"], **about)
        energy = section["watts"] / 1000 * section["price_per_kwh"]
        # Only the hours in which it works have to pay for it; what it draws in the others is not counted.
        share = section["purchase"] / (section["lifetime_hours"] * section["utilisation"])
        return cls(share + energy, purchase=section["purchase"], energy_per_hour=energy, **about)
