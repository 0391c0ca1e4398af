"""A grid is the list of cells that config.yaml asks for: a list of products of axis values.

    experiments:
      warmup:
        cpu:
          - {size: [nano], warmup: [0, 1, 2, 5, 10], replicate: [0]}

A list of products expresses axes that depend on each other without any code. An axis that the cell's dataclass gives a
default may be left out.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from stepbench.pipeline import cells


def expand(cell_type: type, products: Any, *, where: str) -> tuple[Any, ...]:
    """Return the cells of a list of products, each once, in the order written (the last axis varies fastest).

    Args:
        cell_type: the experiment's cell.
        products: what config.yaml holds under `where`.
        where: the key's path, for messages.

    Raises:
        ValueError: one sentence for each thing that is wrong, joined by newlines.
    """
    if not isinstance(products, Sequence) or isinstance(products, str):
        raise ValueError(f"`{where}` must be a list of products of axis values, got {products!r}")
    found: dict[Any, None] = {}
    errors: list[str] = []
    for index, product in enumerate(products):
        try:
            found.update(dict.fromkeys(_expand_product(cell_type, product, f"{where}[{index}]")))
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ValueError("\n".join(errors))
    return tuple(found)


def in_rounds(grid: Iterable[Any]) -> tuple[Any, ...]:
    """Return the cells in the order in which they should be measured: replicate 0 of all before replicate 1 of any.

    A machine that drifts (heat, a neighbour) then slows every cell of a comparison alike, and not the last one most.
    """
    return tuple(sorted(grid, key=lambda cell: getattr(cell, "replicate", 0)))


def _expand_product(cell_type: type, product: Any, where: str) -> list[Any]:
    axes = {axis.name: axis for axis in cells.axes(cell_type)}
    if not isinstance(product, Mapping):
        raise ValueError(f"`{where}` must map axes to lists of values, got {product!r}")
    defaults = {
        field.name: field.default for field in dataclasses.fields(cell_type) if field.default is not dataclasses.MISSING
    }
    errors = [_unknown(key, where, axes) for key in product if key not in axes]
    columns: list[list[Any]] = []
    for name, axis in axes.items():
        values = product.get(name, [defaults[name]] if name in defaults else None)
        if name not in product and name not in defaults:
            errors.append(f"`{where}.{name}` must be given: a list of values, each {axis.valid}")
        elif not isinstance(values, Sequence) or isinstance(values, str) or not values:
            errors.append(f"`{where}.{name}` must be a list of at least one value, got {values!r}")
        else:
            columns.append(values)  # type: ignore[arg-type]
            errors.extend(_check(axis, value, f"{where}.{name}") for value in values)
    errors = [error for error in errors if error]
    if errors:
        raise ValueError("\n".join(errors))
    return [cell_type(*values) for values in itertools.product(*columns)]


def _unknown(key: Any, where: str, axes: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(str(key), axes, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"`{where}.{key}` is not an axis{hint}; the axes are {', '.join(axes)}"


def _check(axis: cells.Axis, value: Any, where: str) -> str:
    try:
        axis.check(value)
    except ValueError:
        return f"`{where}` must hold values that are {axis.valid}, got {value!r}"
    return ""
