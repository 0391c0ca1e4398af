"""The axes of the experiment, what it depends on, and which measures are kept on the way up."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stepbench.kernels import names as kernels
from stepbench.kernels.heads import names as heads
from stepbench.pipeline import cells

TITLE = "Ladder"
QUESTION = "What does each measure buy that makes a training step fast, one after the other?"
SETTINGS = ("protocol", "vocabulary", "data")
READS = ("ceilings", "profile")


@dataclass(frozen=True)
class Rung:
    """What a rung of config.yaml may set; the defaults are the plain step at the foot of the ladder.

    `batch` None is the cell's own. Whole seconds per token are compared, so that a rung may change it.
    """

    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    parameter_dtype: Literal["fp32", "bf16"] = "fp32"
    attention: kernels.Name = "naive"
    optimizer: Literal["adamw_loop", "adamw_foreach", "adamw_fused", "sgd"] = "adamw_loop"
    head: heads.Name = "whole"
    implementation: Literal["eager", "compiled", "compiled_graphs", "captured"] = "eager"
    groups: str = "none"
    batch: int | None = None


@dataclass(frozen=True)
class Cell(cells.Cell):
    """One rung: the fastest step so far, and the same with one measure more, timed one after the other.

    `rung` is a key of `rungs` in config.yaml. The rungs of a point stand in the order of its grid.
    """

    size: str
    context: int
    rung: str
    batch: int = 4
    replicate: int = 0

    def builds_on(self, grid: Iterable[Any]) -> tuple[Any, ...]:
        """Return the cells of the rungs below this one, all replicates, in the order of the ladder."""
        point = [
            each for each in grid if (each.size, each.context, each.batch) == (self.size, self.context, self.batch)
        ]
        order = list(dict.fromkeys(each.rung for each in point))
        below = order[: order.index(self.rung)] if self.rung in order else order
        return tuple(each for rung in below for each in point if each.rung == rung)

    def learned(self, settings: Mapping[str, Any], below: Mapping[Any, Any]) -> dict[str, Any]:
        """Return `kept`: the rungs below that made the step faster, each with its settings.

        And `kernels`, where the two steps have attention kernels of the user's own: their functions by name.

        Args:
            settings: config.yaml.
            below: the cells of `builds_on` with their records, None where there is none that holds numbers.
        """
        names = dict.fromkeys(cell.rung for cell in below)
        kept = [name for name in names if _is_faster([below[cell] for cell in below if cell.rung == name])]
        found: dict[str, Any] = {"kept": {name: dict(settings["rungs"][name]) for name in kept}}
        steps = steps_of({**found, "rung": settings["rungs"].get(self.rung, {})})
        own = settings.get("attention", {})
        kernels_of_own = {each.attention: {"function": own[each.attention]} for each in steps if each.attention in own}
        return found | ({"kernels": kernels_of_own} if kernels_of_own else {})

    def modules(self, definition: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the modules of attention and head of both steps."""
        steps = steps_of(definition)
        return (*kernels.modules(*(each.attention for each in steps)), *heads.modules(*(each.head for each in steps)))


def steps_of(definition: Mapping[str, Any]) -> tuple[Rung, Rung]:
    """Return the fastest step so far, and the same with the rung's own settings."""
    base: dict[str, Any] = {}
    for each in definition["kept"].values():
        base |= each
    return Rung(**base), Rung(**base | definition["rung"])


def rung_mistakes(values: Mapping[str, Any], own: Iterable[str] = ()) -> dict[str, str]:
    """Return what is wrong with the settings of a rung: key -> sentence.

    Args:
        values: of the rung.
        own: the names of the attention kernels of the user's own.
    """
    axes = {axis.name: axis for axis in cells.axes(Rung)}
    found = {}
    for key, value in values.items():
        if key not in axes:
            found[key] = f"is no setting of a rung; valid are {', '.join(axes)}"
            continue
        axis = axes[key]
        if axis.section is not None:
            axis = dataclasses.replace(axis, choices=(*(axis.choices or ()), *own), section=None)
        try:
            axis.check(value)
        except ValueError as error:
            found[key] = str(error).partition("` ")[2]
    return found


def faster_ratios(records: Iterable[Any]) -> list[float]:
    """Return for each process how long a token takes with the rung, over how long without."""
    ratios = []
    for record in records:
        if record is None or not record.samples.get("step_s"):
            continue
        step, base = (statistics.median(record.samples[key]) for key in ("step_s", "base_s"))
        tokens, base_tokens = (record.scalars[key] for key in ("tokens_per_step", "base_tokens_per_step"))
        ratios.append(step / tokens / (base / base_tokens))
    return ratios


def _is_faster(records: Iterable[Any]) -> bool:
    ratios = faster_ratios(records)
    return bool(ratios) and statistics.median(ratios) < 1


def settings_of(rung: Rung) -> dict[str, Any]:
    """Return a step's settings as fields of a step's specification; the batch only where a rung sets it."""
    return {key: value for key, value in dataclasses.asdict(rung).items() if (key, value) != ("batch", None)}
