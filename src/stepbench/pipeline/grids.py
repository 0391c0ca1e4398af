"""A grid is the list of cells that config.yaml asks for: a list of products of axis values.

    experiments:
      warmup:
        cpu:
          - {size: [nano], warmup: [0, 1, 2, 5, 10], replicate: [0]}

A list of products can express axes that depend on each other without code. An axis with a default in the cell's
dataclass may be omitted.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stepbench.pipeline import cells
from stepbench.pipeline.mistakes import ConfigError, Key, Mistake, hint

FIRST = {"gpu_quick": "gpu_first"}  # scale -> the grid with which it begins, of which a first report is made


def parts(scales: Mapping[str, Any], scale: str, *, first: bool = False) -> dict[str, Any]:
    """Return the lists of products that a scale takes of an experiment, by their keys; those with cells.

    Args:
        scales: the experiment's section of config.yaml.
        scale: `cpu`, `gpu_quick` or `gpu`.
        first: only those of a first report.
    """
    keys = [FIRST.get(scale, ""), *([] if first else [scale])]
    return {key: scales[key] for key in keys if scales.get(key)}


def expand_all(cell_type: type, found: Mapping[str, Any], *, where: tuple[Key, ...]) -> tuple[Any, ...]:
    """Return the cells of several lists of products, each once; `where` is the path of what they stand in."""
    lists = (expand(cell_type, products, where=(*where, key)) for key, products in found.items())
    return tuple(dict.fromkeys(itertools.chain.from_iterable(lists)))


def expand(cell_type: type, products: Any, *, where: tuple[Key, ...]) -> tuple[Any, ...]:
    """Return the cells of a list of products, each once, in the order of the list (the last axis varies fastest).

    Args:
        cell_type: the experiment's class of cells.
        products: the value in config.yaml.
        where: the path of its keys, for error messages.

    Raises:
        stepbench.pipeline.mistakes.ConfigError: with every mistake.
    """
    if not isinstance(products, Sequence) or isinstance(products, str):
        raise ConfigError(Mistake("value", f"must be a list of products of axis values, got {products!r}", where))
    found: dict[Any, None] = {}
    mistakes: list[Mistake] = []
    for index, product in enumerate(products):
        wrong = list(_mistakes(cell_type, product, (*where, index)))
        mistakes += wrong
        if not wrong:
            found.update(dict.fromkeys(_cells(cell_type, product)))
    if mistakes:
        raise ConfigError(*mistakes)
    return tuple(found)


def in_rounds(grid: Iterable[Any]) -> tuple[Any, ...]:
    """Return the cells in the order of measurement: replicate 0 of all cells before replicate 1 of any.

    A machine that drifts (heat, other processes) then slows all cells of a comparison alike instead of only the last.
    """
    return tuple(sorted(grid, key=lambda cell: getattr(cell, "replicate", 0)))


def _defaults(cell_type: type) -> dict[str, Any]:
    fields = dataclasses.fields(cell_type)
    return {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}


def _cells(cell_type: type, product: Mapping[str, Any]) -> list[Any]:
    values = {**{name: [default] for name, default in _defaults(cell_type).items()}, **product}
    return [cell_type(*each) for each in itertools.product(*(values[axis.name] for axis in cells.axes(cell_type)))]


def _mistakes(cell_type: type, product: Any, path: tuple[Key, ...]) -> Iterator[Mistake]:
    axes = {axis.name: axis for axis in cells.axes(cell_type)}
    defaults = _defaults(cell_type)
    if not isinstance(product, Mapping):
        yield Mistake("value", f"must map axes to lists of values, got {product!r}", path)
        return
    for key in product:
        if key not in axes:
            yield Mistake("unknown", f"is not an axis{hint(str(key), axes)}", (*path, str(key)))
    for name, axis in axes.items():
        values = product.get(name)
        if name not in product:
            if name not in defaults:
                sentence = f"must be given: a list of values, each {axis.valid}"
                yield Mistake("missing", sentence, (*path, name))
        elif not isinstance(values, Sequence) or isinstance(values, str) or not values:
            yield Mistake("value", f"must be a list of at least one value, got {values!r}", (*path, name))
        else:
            for value in values:
                if not _allows(axis, value):
                    yield Mistake("value", f"must hold values that are {axis.valid}, got {value!r}", (*path, name))


def _allows(axis: cells.Axis, value: Any) -> bool:
    try:
        axis.check(value)
    except ValueError:
        return False
    return True
