"""From raw SI values to readable text; None, NaN and infinity become a dash.

The uncertainty of a number decides its digits: one digit of the uncertainty, two if that begins with a small digit; at
most `MAX_DIGITS` in all, and `DEFAULT_DIGITS` where the uncertainty is unknown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeGuard

NOTHING = "–"
DEFAULT_DIGITS = 3
MAX_DIGITS = 5
SECOND_DIGIT_BELOW = 3.55  # the rounding rule of the Particle Data Group
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
WIDE = 100.0  # an interval whose ends are this many times apart says nothing; its ends are noise
LEAST_SHARE = 1e-4


@dataclass(frozen=True)
class Unit:
    """A unit to show values in: `size` is its worth in the raw unit."""

    name: str
    size: float


SECONDS = (Unit("s", 1.0), Unit("ms", 1e-3), Unit("µs", 1e-6), Unit("ns", 1e-9))
BYTES = (Unit("TiB", 2.0**40), Unit("GiB", 2.0**30), Unit("MiB", 2.0**20), Unit("KiB", 2.0**10), Unit("B", 1.0))
JOULES = (Unit("kJ", 1e3), Unit("J", 1.0), Unit("mJ", 1e-3), Unit("µJ", 1e-6))
BYTES_PER_SECOND = (Unit("TB/s", 1e12), Unit("GB/s", 1e9), Unit("MB/s", 1e6), Unit("kB/s", 1e3), Unit("B/s", 1.0))
FLOPS_PER_SECOND = (Unit("TFLOP/s", 1e12), Unit("GFLOP/s", 1e9), Unit("MFLOP/s", 1e6), Unit("FLOP/s", 1.0))
COUNTS = (Unit(" M", 1e6), Unit(" k", 1e3), Unit("", 1.0))  # a model of 2.0 B would hide what 1998.2 M tells


def number(value: float | None, spread: float | None = None, *, digits: int = DEFAULT_DIGITS) -> str:
    """Return `value` with the digits that `spread`, its uncertainty in the same unit, leaves."""
    if not _known(value):
        return NOTHING
    return _fixed(value, _decimals(value, spread, digits))


def pick(family: tuple[Unit, ...], values: Iterable[float | None]) -> Unit:
    """Return the largest unit in which the smallest positive value is at least 1, for a column to share."""
    positive = [abs(value) for value in values if _known(value) and value != 0]
    smallest = min(positive, default=family[0].size)
    return next((unit for unit in family if smallest >= unit.size * (1 - 1e-9)), family[-1])


def quantity(value: float | None, family: tuple[Unit, ...], spread: float | None = None) -> str:
    """Return `value` in the unit of the family that suits it."""
    if not _known(value):
        return NOTHING
    unit = pick(family, [value])
    return f"{number(value / unit.size, None if spread is None else spread / unit.size)} {unit.name}"


def seconds(value: float | None, spread: float | None = None) -> str:
    """Return a duration such as `12.3 ms`."""
    return quantity(value, SECONDS, spread)


def byte_count(value: float | None) -> str:
    """Return an amount of memory such as `1.24 GiB`; there is no part of a byte."""
    return f"{value:.0f} B" if _known(value) and value < 2**10 else quantity(value, BYTES)


def byte_rate(value: float | None, spread: float | None = None) -> str:
    """Return a bandwidth such as `864 GB/s`, in powers of ten as vendors give it."""
    return quantity(value, BYTES_PER_SECOND, spread)


def joules(value: float | None) -> str:
    """Return an energy such as `1.24 J`; nothing at all where it is not known, so that its column can go."""
    return quantity(value, JOULES) if _known(value) else ""


def flop_rate(value: float | None, spread: float | None = None) -> str:
    """Return a rate such as `312 TFLOP/s`."""
    return quantity(value, FLOPS_PER_SECOND, spread)


def flop_tick(value: float) -> str:
    """Return a rate for an axis, such as `200 GFLOP/s`."""
    unit = pick(FLOPS_PER_SECOND, [value])
    return f"{value / unit.size:g} {unit.name}"


def scientific(value: float | None) -> str:
    """Return a signed number of any size, such as `−4.69×10⁻²`."""
    if not _known(value):
        return NOTHING
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}".replace("-", "\N{MINUS SIGN}")


def exactly(value: float | None) -> str:
    """Return a float in the fewest digits that tell it from its neighbours in single precision."""
    return NOTHING if not _known(value) else f"{value:.9g}"


def count(value: float | None) -> str:
    """Return a large count such as `128.6 M`: one decimal, because that is how the field names its models."""
    if not _known(value):
        return NOTHING
    unit = pick(COUNTS, [value])
    return f"{value / unit.size:.1f}{unit.name}" if unit.size > 1 else f"{value:.0f}"


def percent(value: float | None, *, digits: int = 2) -> str:
    """Return a share such as `41 %`; the raw value is 0.41."""
    return NOTHING if not _known(value) else f"{_fixed(100 * value, min(2, _decimals(100 * value, None, digits)))} %"


def ratio(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """Return a ratio with its interval, such as `1.87× [1.80, 1.95]`."""
    return _with_interval(value, low, high, sign="×", least=2)


def middle(value: float | None, low: float | None, high: float | None, *, per: float = 1.0) -> str:
    """Return `median [low, high]`, all divided by `per` and with equal decimals; no brackets without an interval."""
    value, low, high = (None if each is None else each / per for each in (value, low, high))
    return _with_interval(value, low, high)


def median(value: float | None, low: float | None, high: float | None, *, per: float = 1.0) -> str:
    """Return the median alone, divided by `per`, with as many digits as its interval leaves."""
    value, low, high = (None if each is None else each / per for each in (value, low, high))
    return number(value, _half(low, high))


def plus_minus(value: float | None, spread: float | None, *, per: float = 1.0) -> str:
    """Return `mean ± std`, both divided by `per` and with equal decimals; the mean alone without a deviation."""
    if not _known(value):
        return NOTHING
    if not _known(spread):
        return number(value / per)
    decimals = _decimals(value / per, spread / per, DEFAULT_DIGITS)
    return f"{_fixed(value / per, decimals)} ± {_fixed(spread / per, decimals)}"


def _with_interval(value: float | None, low: float | None, high: float | None, sign: str = "", least: int = 0) -> str:
    if not _known(value):
        return NOTHING
    least = least if abs(value) < 10 else 0
    half = _half(low, high)
    decimals = max(least, _decimals(value, half, DEFAULT_DIGITS))
    text = f"{_fixed(value, decimals)}{sign}"
    if not _known(low) or not _known(high):
        return text
    return f"{text} [very wide]" if half is None else f"{text} [{_fixed(low, decimals)}, {_fixed(high, decimals)}]"


def _half(low: float | None, high: float | None) -> float | None:
    """Return half the width of an interval, or None where it is unknown or says nothing."""
    if not _known(low) or not _known(high) or (low > 0 and high / low > WIDE):
        return None
    return (high - low) / 2


def _decimals(value: float, spread: float | None, digits: int) -> int:
    """Return how many decimals to show of `value`, by its uncertainty where that is known."""
    if value == 0 and not (_known(spread) and spread > 0):
        return digits - 1
    leading = _leading(value) if value else -1
    if not _known(spread) or spread <= 0:
        return max(0, digits - 1 - leading)
    doubtful = _leading(spread)
    # 0.012 says 20 % more or less than 0.01, but 0.082 next to nothing more than 0.08.
    decimals = -doubtful + (1 if spread / 10.0**doubtful < SECOND_DIGIT_BELOW else 0)
    return max(0, min(decimals, MAX_DIGITS - 1 - leading))


def _leading(value: float) -> int:
    """Return the power of ten of the first digit."""
    return math.floor(math.log10(abs(value)))


def _fixed(value: float, decimals: int) -> str:
    """Return `value` with `decimals` decimals; thousands apart by a thin space from ten thousand on."""
    text = f"{value:,.{decimals}f}" if abs(value) >= 10_000 else f"{value:.{decimals}f}"
    return text.replace(",", "\N{NARROW NO-BREAK SPACE}").replace("-", "\N{MINUS SIGN}")


def _known(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def difference(share: float | None) -> str:
    """Return a signed share such as `−0.42 %`; what would round to nothing shows its size."""
    if share is None:
        return NOTHING
    sign = "" if abs(share) < LEAST_SHARE else "+" if share > 0 else "\N{MINUS SIGN}"
    return f"{sign}{share_of(share)}"


def share_of(share: float) -> str:
    """Return the size of a share such as `0.42 %`; what would round to nothing is `under 0.01 %`."""
    return "under 0.01 %" if abs(share) < LEAST_SHARE else percent(abs(share))
