"""Memory over time: allocations and frees in their order, and the category of each allocation.

Two watchers produce the same list of changes: `predicted_memory` from fake tensors, `allocator_memory` from torch's
profiler. The caller claims the allocations whose owner it knows (parameters, gradients, optimizer state). The others
are classified by lifetime:

    activations   allocated in the forward pass and still alive at its end, for the backward pass
    temporary     everything else: allocated and freed within a phase, or computed by the backward pass

So what checkpointing recomputes in the backward pass is temporary, and the activations it avoids do not appear.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

PARAMETERS, GRADIENTS, OPTIMIZER_STATE = RESIDENT = ("parameters", "gradients", "optimizer_state")
ACTIVATIONS, TEMPORARY = "activations", "temporary"
CATEGORIES = (*RESIDENT, ACTIVATIONS, TEMPORARY)
FORWARD = "forward"
MOMENT_DIGITS = 9  # of a second, the resolution of a trace
SHOWN_POINTS = 400  # points kept in a record; a step of the 2.7B size has a hundred thousand changes


class WatchedStep(Protocol):
    """A step whose memory can be watched."""

    @property
    def phases(self) -> Mapping[str, Callable[[], object]]:
        """The phases in order, such as `forward`, `backward`, `optimizer`."""

    def prime(self) -> None:
        """Create the gradients and the optimizer state that a first step would leave behind."""

    def owned(self) -> Mapping[str, Iterable[Tensor]]:
        """Return the tensors that exist now, by category of `RESIDENT`."""


@dataclass(frozen=True)
class Change:
    """An allocation (`delta_bytes` above 0) or a free.

    Attributes:
        moment: in the watcher's unit, never decreasing.
        storage: identifies the allocation while it is alive; an address may be reused after a free.
        delta_bytes: change of the allocated bytes.
    """

    moment: float
    storage: int
    delta_bytes: int


@dataclass(frozen=True)
class Claim:
    """The category of an allocation that is alive at this moment, as its owner knows it."""

    moment: float
    storage: int
    category: str


@dataclass(frozen=True)
class Span:
    """A phase of the step, from its first moment to its last."""

    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Timeline:
    """The bytes of each category after each change.

    Attributes:
        moments: the moment of each change.
        levels: after each change, the bytes of each of `CATEGORIES`.
        spans: the phases, in order.
        unit: unit of the moments: `s`, or `changes` where there is no time.
        built: the moment when the step had been built and nothing had run.
        births: for each change the position of the allocation that it makes or frees.
    """

    moments: Sequence[float]
    levels: Sequence[tuple[int, ...]]
    spans: tuple[Span, ...]
    unit: str
    built: float
    births: Sequence[int] = ()

    def peak(self, span: Span | None = None) -> dict[str, int]:
        """Return the bytes of each category at the moment of the largest sum in a phase, or in all phases.

        The level at the start of the phase counts too.
        """
        span = span or Span("step", self.spans[0].start, self.spans[-1].end)
        inside = self.levels[bisect_left(self.moments, span.start) : bisect_right(self.moments, span.end)]
        return _named(max([self._before(span.start), *inside], key=sum))

    def highest(self, categories: Iterable[str], span: Span) -> int:
        """Return the largest sum of bytes of some categories during a phase."""
        wanted = [CATEGORIES.index(category) for category in categories]
        inside = self.levels[bisect_left(self.moments, span.start) : bisect_right(self.moments, span.end)]
        return max(sum(level[index] for index in wanted) for level in [self._before(span.start), *inside])

    def after(self, span: Span) -> dict[str, int]:
        """Return the bytes of each category at the end of a phase."""
        changed = bisect_right(self.moments, span.end)
        return _named(self.levels[changed - 1] if changed else _NOTHING)

    def before(self) -> dict[str, int]:
        """Return the bytes of each category at the start of the first phase."""
        return _named(self._before(self.spans[0].start))

    def scalars(self) -> dict[str, int]:
        """Return the numbers for a record: the peaks of the step and of each phase, in total and by category."""
        peak = self.peak()
        found = {"peak_memory_bytes": sum(peak.values())}
        found |= {f"peak_{category}_bytes": value for category, value in peak.items()}
        found |= {f"built_{category}_bytes": value for category, value in _named(self._before(self.built)).items()}
        found |= {f"before_{category}_bytes": value for category, value in self.before().items()}
        for span in self.spans:
            at_peak = self.peak(span)
            found[f"{span.name}_peak_bytes"] = sum(at_peak.values())
            found |= {f"{span.name}_peak_{category}_bytes": value for category, value in at_peak.items()}
            found |= {f"{span.name}_after_{category}_bytes": value for category, value in self.after(span).items()}
        return found

    def details(self, points: int = SHOWN_POINTS) -> dict[str, Any]:
        """Return the timeline for a record, with moments relative to the start of the first phase.

        It is thinned to `points` stretches; the highest level of each is kept, so that no peak is lost.
        """
        zero, end = self.spans[0].start, self.spans[-1].end
        first, last = bisect_left(self.moments, zero), bisect_right(self.moments, end)
        stretch = max(1, -(-(last - first) // points))
        kept = [(zero, self._before(zero))]
        for begin in range(first, last, stretch):
            highest = max(range(begin, min(begin + stretch, last)), key=lambda index: sum(self.levels[index]))
            kept.append((self.moments[highest], self.levels[highest]))
        return {
            "unit": self.unit,
            "moments": [round(moment - zero, MOMENT_DIGITS) for moment, _ in kept],
            "bytes": {name: [level[index] for _, level in kept] for index, name in enumerate(CATEGORIES)},
            "spans": [
                [span.name, round(span.start - zero, MOMENT_DIGITS), round(span.end - zero, MOMENT_DIGITS)]
                for span in self.spans
            ],
        }

    def _before(self, moment: float) -> tuple[int, ...]:
        changed = bisect_left(self.moments, moment)
        return self.levels[changed - 1] if changed else _NOTHING


def build(
    changes: Iterable[Change], claims: Iterable[Claim], spans: Sequence[Span], *, unit: str, built: float
) -> Timeline:
    """Return the timeline of changes, with each allocation in its category.

    Args:
        changes: in order. A free without an allocation is ignored.
        claims: claims on living allocations; a claim applies after the changes of its moment.
        spans: the phases, in order.
        unit: unit of the moments.
        built: the moment when the step had been built.

    Raises:
        ValueError: there is no phase.
    """
    if not spans:
        raise ValueError("`spans` must hold at least one phase, got none")
    followed = _followed(changes, claims)
    forwards = [span for span in spans if span.name == FORWARD]
    level = list(_NOTHING)
    levels = []
    for _, piece, sign in followed:
        level[CATEGORIES.index(piece.category or _by_lifetime(piece, forwards))] += sign * piece.size_bytes
        levels.append(tuple(level))
    born: dict[int, int] = {}
    births = [born.setdefault(id(piece), position) for position, (_, piece, _) in enumerate(followed)]
    return Timeline(tuple(moment for moment, _, _ in followed), tuple(levels), tuple(spans), unit, built, births)


@dataclass
class _Piece:
    """One allocation and its lifetime."""

    born: float
    size_bytes: int
    died: float | None = None
    category: str | None = None


_NOTHING = (0,) * len(CATEGORIES)


def _named(level: tuple[int, ...]) -> dict[str, int]:
    return dict(zip(CATEGORIES, level, strict=True))


def _followed(changes: Iterable[Change], claims: Iterable[Claim]) -> list[tuple[float, _Piece, int]]:
    """Return each change as moment, allocation, and +1 or -1."""
    waiting = sorted(claims, key=lambda claim: claim.moment, reverse=True)
    alive: dict[int, _Piece] = {}
    found: list[tuple[float, _Piece, int]] = []
    for change in changes:
        while waiting and waiting[-1].moment < change.moment:
            _settle(waiting.pop(), alive)
        if change.delta_bytes > 0:
            alive[change.storage] = piece = _Piece(change.moment, change.delta_bytes)
            found.append((change.moment, piece, 1))
        elif change.storage in alive:
            piece = alive.pop(change.storage)
            piece.died = change.moment
            found.append((change.moment, piece, -1))
    while waiting:
        _settle(waiting.pop(), alive)
    return found


def _settle(claim: Claim, alive: Mapping[int, _Piece]) -> None:
    if claim.storage in alive:
        alive[claim.storage].category = claim.category


def _by_lifetime(piece: _Piece, forwards: Iterable[Span]) -> str:
    for span in forwards:
        if span.start <= piece.born <= span.end and (piece.died is None or piece.died > span.end):
            return ACTIVATIONS
    return TEMPORARY
