"""The peak memory of a step as a function of its batch and context, made of a few predictions.

Eager code allocates and frees in the same order whatever the batch, the context and the number of blocks are; only
the sizes differ. So a few timelines of small steps determine those of all others:

- The size of an allocation is a product of dims. In the batch it is affine, and in the context affine or a multiple of
  its square: steps of two batches and two contexts tell which. Of code that is not known to multiply such dims it may
  be any quadratic polynomial of the context, which takes a third one; a step more tells whether it is.
- Within a phase a block does what the block before it did. Therefore the level at a turning point counted from the
  phase's start (or from its end) is affine in the number of blocks, and between the first and the last blocks no level
  is above both ends: what only the deeper model does is cut out where the changes before and after are alike. Steps of
  two depths determine all deeper ones. Turning points, because an operator on a list of all parameters allocates more
  tensors in a deeper model, but one after the other.
- A head that takes its tokens by chunks has more of them for more tokens. So each range of tokens has polynomials of
  its own.

The peak is the largest of these polynomials. The tests compare it with predictions of whole steps.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stepbench.measure.memory_timeline import Timeline

MOST = 2**24  # where a search ends

Array = NDArray[np.float64]


class StructureError(ValueError):
    """Two steps do not allocate in the same order, so that nothing follows from one for the other."""


@dataclass(frozen=True)
class Piece:
    """The peak of the steps within a range of tokens, which run the same operators.

    Attributes:
        most_tokens: up to which, from where the piece before it ends; None is no bound.
        coefficients: of each polynomial that may be the largest: of 1, T, T², B, BT and BT² (T the context, B the
            batch), in bytes.
    """

    most_tokens: int | None
    coefficients: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Envelope:
    """The peak of a step of one model, precision, optimizer, attention, head and checkpointing.

    Attributes:
        pieces: the one of the fewest tokens first; the last has no bound.
        most_context: the longest context of the model, whatever the memory; None where it has none.
    """

    pieces: tuple[Piece, ...]
    most_context: int | None = None

    def peak_bytes(self, batch: int, context: int) -> int:
        """Return the predicted peak of such a step in bytes."""
        tokens, powers = batch * context, _powers(batch, context)
        piece = next(each for each in self.pieces if each.most_tokens is None or tokens <= each.most_tokens)
        return round(max(sum(map(operator.mul, each, powers)) for each in piece.coefficients))

    def largest_batch(self, context: int, memory_bytes: int) -> int:
        """Return the largest batch that fits into so much memory at a context; 0 where none does."""
        return _largest(lambda batch: self.peak_bytes(batch, context) <= memory_bytes)

    def largest_context(self, batch: int, memory_bytes: int) -> int:
        """Return the largest context that fits into so much memory at a batch; 0 where none does."""
        most = MOST if self.most_context is None else self.most_context
        return _largest(lambda context: context <= most and self.peak_bytes(batch, context) <= memory_bytes)


@dataclass(frozen=True)
class Points:
    """Steps that tell all others: the first, one more batch, and one more context or two, where T² is not all."""

    batches: tuple[int, int]
    contexts: tuple[int, ...]

    def each(self) -> list[tuple[int, int]]:
        """Return the batches and contexts whose steps `fit` needs, in its order."""
        (low, high), (short, *longer) = self.batches, self.contexts
        return [(low, short), (high, short), *((low, long) for long in longer)]


def fit(timelines: Mapping[int, Sequence[Timeline]], depth: int, points: Points) -> tuple[tuple[float, ...], ...]:
    """Return the coefficients of a model's peak, of steps that run the same operators; see `Piece`.

    Args:
        timelines: number of blocks -> the timelines at each of `points`; of two numbers, or of `depth` alone.
        depth: the number of blocks of the model.
        points: of the timelines.

    Raises:
        StructureError: steps of one depth differ in more than sizes, or the deeper model does other things too.
    """
    depths = sorted(timelines)
    levels = {each: _levels(timelines[each], points) for each in depths}
    found: list[Array] = []
    for index in range(len(timelines[depths[0]][0].spans)):
        phases = [_phase(levels[each], timelines[each][0], index) for each in depths]
        if len(phases) == 1:
            found.append(phases[0])
            continue
        (first, second), (low, high) = phases, depths
        second = _aligned(second, first)
        found.append(first + (second - first) * ((depth - low) / (high - low)))
    return tuple(tuple(map(float, each)) for each in _largest_ones(np.concatenate(found)))


def _levels(timelines: Sequence[Timeline], points: Points) -> Array:
    """Return the polynomial of the level after each change, and before the first: `[changes + 1, 6]`."""
    first = timelines[0]
    base, other_batch, *other_contexts = (np.diff(_totals(each)) for each in timelines)
    for each, deltas in zip(timelines[1:], (other_batch, *other_contexts), strict=True):
        if each.spans != first.spans or not np.array_equal(deltas > 0, base > 0):
            raise StructureError("it runs other operators at another batch or context")
    births = np.asarray(first.births)
    sizes = _polynomials(base, other_batch, other_contexts, points)[births]
    # What is freed at once, such as weights that autocast has cached, is freed in any order. So a free counts with the
    # polynomial of its allocation, and the first timeline says which that is.
    deltas = np.where((births == np.arange(len(births)))[:, None], sizes, -sizes)
    return np.concatenate([np.zeros((1, 6)), np.cumsum(deltas, axis=0)])


def _totals(timeline: Timeline) -> Array:
    return np.array([0, *map(sum, timeline.levels)], dtype=np.float64)


def _polynomials(base: Array, other_batch: Array, other_contexts: Sequence[Array], points: Points) -> Array:
    """Return the polynomials of sizes that are known at `points`: `[sizes, 6]`."""
    low, high = points.batches
    per_batch = (other_batch / base - 1) / (high - low)
    growths = [each / base for each in other_contexts]
    of_context = _through_two(growths[0], points) if len(growths) == 1 else _through_three(growths, points)
    of_batch = np.stack([1 - per_batch * low, per_batch], axis=1)
    return base[:, None] * (of_batch[:, :, None] * of_context[:, None, :]).reshape(len(base), 6)


def _through_two(growth: Array, points: Points) -> Array:
    """Return of each size, over the first, the coefficients of 1, T and T²: a multiple of T² or affine in T."""
    short, long = points.contexts
    is_square = np.isclose(growth, (long / short) ** 2)
    per_context = np.where(is_square, 0, (growth - 1) / (long - short))
    return np.stack(
        [np.where(is_square, 0, 1 - per_context * short), per_context, np.where(is_square, 1 / short**2, 0)], axis=1
    )


def _through_three(growths: Sequence[Array], points: Points) -> Array:
    """Return likewise the coefficients of the quadratic polynomials through three contexts."""
    powers = np.vander(np.array(points.contexts, dtype=np.float64), increasing=True)
    known = np.stack([np.ones_like(growths[0]), *growths])
    return np.asarray(np.linalg.solve(powers, known).T, dtype=np.float64)


def _phase(levels: Array, timeline: Timeline, index: int) -> Array:
    """Return the levels at the turning points of a phase, its start and its end among them."""
    span = timeline.spans[index]
    moments = np.asarray(timeline.moments)
    first = int(np.searchsorted(moments, span.start))
    last = int(np.searchsorted(moments, span.end, side="right"))
    rises = np.diff(_totals(timeline)[first : last + 1]) > 0
    turns = np.concatenate([[True], rises[:-1] != rises[1:], [True]]) if len(rises) else np.array([True])
    return levels[first : last + 1][turns]


def _aligned(deeper: Array, shallow: Array) -> Array:
    """Return the levels of a deeper model that stand for a shallow one's: some from its start, the others from its end.

    What is between them are blocks that the shallow model has not. Where the changes before are the same and those
    after are, there the two are cut: in the middle of all such places. The phase's first change and its last may be of
    all blocks at once, such as gradients that are freed.

    Raises:
        StructureError: there is no such place.
    """
    count, more = len(shallow), len(deeper) - len(shallow)
    if more == 0:
        return deeper
    if more > 0 and count > 2:
        own, other = np.diff(shallow, axis=0), np.diff(deeper, axis=0)
        before = _alike(own[1:], other[1 : count - 1]) + 1
        after = _alike(own[-2::-1], other[-2 : more - 1 : -1]) + 1
        if before + after >= count - 1:
            cut = (before + count - after) // 2
            return np.concatenate([deeper[:cut], deeper[cut + more :]])
    raise StructureError("a deeper model does not only repeat what a shallow one does")


def _alike(some: Array, others: Array) -> int:
    """Return how many of the first rows are the same in both."""
    differ = np.flatnonzero(~np.isclose(some, others).all(axis=1))
    return int(differ[0]) if len(differ) else len(some)


def _largest_ones(polynomials: Array) -> Array:
    """Return the polynomials that another one does not exceed in every coefficient."""
    # What rounding left of a coefficient would keep a polynomial beside its equal.
    kept: list[Array] = []
    for each in sorted(np.unique(np.round(polynomials, 3), axis=0), key=np.sum, reverse=True):
        if not any(np.all(other >= each) for other in kept):
            kept.append(each)
    return np.array(kept)


def _powers(batch: int, context: int) -> tuple[float, ...]:
    of_context = (1.0, float(context), float(context) ** 2)
    return (*of_context, *(batch * each for each in of_context))


def _largest(fits: Callable[[int], bool]) -> int:
    """Return the largest number for which `fits` holds, by bisection; it holds for all below one for which it does."""
    if not fits(1):
        return 0
    low, high = 1, 2
    while high < MOST and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
