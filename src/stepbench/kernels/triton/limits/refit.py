"""Fit a few constants of the model to measured times: least squares within bounds, over relative errors.

A replay jumps a little where programs meet in another order, so derivatives are taken over steps of 5 %, and a step is
kept only where the error falls.
"""

import datetime
import itertools
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stepbench.kernels.triton.limits.machine import FITTED, Machine
from stepbench.kernels.triton.limits.predict import Limits, limits
from stepbench.kernels.triton.limits.sass import Instruction
from stepbench.kernels.triton.tiles import Tile

# What is fitted, and where it may lie: the base and the boost clock, from an empty launch to one that loads its code,
# and for latencies and rates what microbenchmarks of an H100 found, with room.
BOUNDS = {
    "clock_hz": (1.1e9, 1.98e9),
    "launch_cycles": (500.0, 12_000.0),
    "drain": (5.0, 120.0),
    "copy": (300.0, 1500.0),
    "copy_bytes": (12.0, 64.0),
    "burst_bytes": (12.0, 64.0),
}
FEWEST_KERNELS, FEWEST_TIMES = 3, len(BOUNDS) + 2
_STEP = 0.05  # of a derivative, relative
# A constant that doubles counts as much as a time that is off by 1 %, so that what no time depends on stays as it is.
_STAY = 0.01
_MOST_ROUNDS = 25
_OF_THE_GRID = {"clock_hz": 1.0, "launch_cycles": 0.0}  # what no replay depends on


@dataclass(frozen=True)
class Launch:
    """A measured time of a kernel.

    Attributes:
        context: Tq and Tk.
        tokens: batch · context.
        width: heads · head dim.
        seconds: median.
    """

    context: int
    is_causal: bool
    tokens: int
    width: int
    seconds: float


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel and its measured times.

    Attributes:
        programs: at a time on a multiprocessor.
        code: of `sass.parse`.
    """

    name: str
    head_dim: int
    tile: Tile
    programs: int
    code: tuple[Instruction, ...]
    launches: tuple[Launch, ...]


@dataclass(frozen=True)
class Error:
    """How far predicted times lie from measured ones, relative to these."""

    mean: float
    deviation: float
    worst: float

    @staticmethod
    def of(ratios: Sequence[float]) -> "Error":
        """Summarise predicted / measured."""
        errors = [ratio - 1 for ratio in ratios]
        return Error(statistics.fmean(errors), statistics.pstdev(errors), max(errors, key=abs))

    @property
    def square(self) -> float:
        """Return the mean of the squares."""
        return self.mean**2 + self.deviation**2

    def __str__(self) -> str:
        return f"mean {self.mean:+.1%}, standard deviation {self.deviation:.1%}, worst {self.worst:+.1%}"


@dataclass(frozen=True)
class Fit:
    """The machine before and after, with the errors of the predicted times."""

    old: Machine
    new: Machine
    before: Error
    after: Error

    @property
    def is_better(self) -> bool:
        """Tell whether the new machine describes the times better."""
        return self.after.square < self.before.square

    @property
    def constants(self) -> Iterator[tuple[str, float, float, bool]]:
        """Yield name, old and new value of each fitted constant, and whether it has reached a bound."""
        for name, bounds in BOUNDS.items():
            old, new = float(getattr(self.old, name)), float(getattr(self.new, name))
            yield name, old, new, any(math.isclose(new, bound, rel_tol=1e-3) for bound in bounds)


def refit(
    kernels: Sequence[Kernel],
    *,
    old: Machine = Machine(),  # noqa: B008 - it is frozen
    each: Callable[..., Iterable[Any]] = map,
) -> Fit:
    """Fit the constants of `BOUNDS` to measured times.

    Args:
        kernels: with their times.
        old: where to start.
        each: `map`, or that of a pool of processes.

    Raises:
        ValueError: there are too few kernels or times to fit the constants.
    """
    from scipy.optimize import Bounds, least_squares  # late: it takes 0.5 s

    times = sum(len(kernel.launches) for kernel in kernels)
    if len(kernels) < FEWEST_KERNELS or times < FEWEST_TIMES:
        raise ValueError(
            f"`kernels` must be at least {FEWEST_KERNELS} with {FEWEST_TIMES} times for {len(BOUNDS)} constants, "
            f"got {len(kernels)} with {times}"
        )
    predictions = _Predictions(kernels, each)

    def changed(factors: NDArray[np.float64]) -> Machine:
        """Return the machine with each constant multiplied by its factor."""
        pairs = zip(BOUNDS, factors, strict=True)
        return replace(old, **{name: float(getattr(old, name) * factor) for name, factor in pairs})

    def residuals(factors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the errors of all times, and how far each constant is from where it began."""
        return np.concatenate([np.log(predictions.ratios(changed(factors))), _STAY * (factors - 1)])

    start = np.ones(len(BOUNDS))
    low, high = (np.array([bounds[side] / getattr(old, name) for name, bounds in BOUNDS.items()]) for side in (0, 1))
    solved = least_squares(
        residuals, start, bounds=Bounds(low, high), diff_step=_STEP * start, xtol=1e-3, ftol=1e-3, max_nfev=_MOST_ROUNDS
    )
    new = changed(solved.x)
    return Fit(old, new, Error.of(predictions.ratios(old)), Error.of(predictions.ratios(new)))


class _Predictions:
    """What the model says of kernels; their code is replayed again only where a constant of the replay differs."""

    def __init__(self, kernels: Sequence[Kernel], each: Callable[..., Iterable[Any]]) -> None:
        self._kernels, self._each = kernels, each
        self._replayed: dict[Machine, list[Limits]] = {}

    def ratios(self, machine: Machine) -> list[float]:
        """Return predicted over measured times."""
        key = replace(machine, **_OF_THE_GRID)
        if key not in self._replayed:
            self._replayed[key] = list(self._each(_limits, self._kernels, itertools.repeat(key)))
        return [
            _seconds(replace(found, machine=machine), launch) / launch.seconds
            for kernel, found in zip(self._kernels, self._replayed[key], strict=True)
            for launch in kernel.launches
        ]


def _seconds(found: Limits, launch: Launch) -> float:
    return found.seconds(launch.context, is_causal=launch.is_causal, tokens=launch.tokens, width=launch.width)


def _limits(kernel: Kernel, machine: Machine) -> Limits:
    return limits(kernel.code, kernel.name, kernel.head_dim, kernel.tile, programs=kernel.programs, machine=machine)


def write(fit: Fit, origin: str, path: Path = FITTED) -> None:
    """Keep the new constants, and what they were fitted to."""
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    constants: Mapping[str, float] = {name: float(f"{asdict(fit.new)[name]:.4g}") for name in BOUNDS}
    content = {"origin": f"{origin}, {today}; error of the times: {fit.after}", "constants": constants}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
