"""config.yaml: read strictly, checked against config.schema.yaml and for what it means; all mistakes at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stepbench.experiments import experiment as experiments
from stepbench.experiments.ladder.cell import rung_mistakes
from stepbench.models.architecture import Architecture
from stepbench.models.own import OwnModel, is_function, is_own
from stepbench.models.presets import Preset
from stepbench.models.sizes import ModelSize, Shape, ShapeError
from stepbench.pipeline import cells, grids, strict_yaml
from stepbench.pipeline.mistakes import ConfigError, Key, Mistake, hint

if TYPE_CHECKING:
    import jsonschema

__all__ = ["NAMED", "SCHEMA", "ConfigError", "check", "entries", "merge", "read"]

SCHEMA = "config.schema.yaml"
RENTED = ("per_device_hour",)
BOUGHT = ("purchase", "lifetime_hours", "watts", "price_per_kwh", "utilisation")
# An axis whose values are keys of sections.
NAMED = {"size": ("sizes", "models"), "preset": ("presets",), "rung": ("rungs",)}


def read(path: Path) -> dict[str, Any]:
    """Return the content of one YAML file as Snakemake takes it; `check` says what is wrong with it.

    Raises:
        ConfigError: it is missing, or does not hold keys and values in YAML.
    """
    content = strict_yaml.parse(path).content
    if not isinstance(content, dict):
        raise ConfigError(Mistake("unreadable", f"must be a mapping, got {type(content).__name__}", file=path))
    return content


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over`; mappings are merged key by key, as Snakemake does."""
    merged = dict(base)
    for key, value in over.items():
        there = merged.get(key)
        if isinstance(value, Mapping):
            value = merge(there if isinstance(there, Mapping) else {}, value)
        merged[key] = value
    return merged


def entries(config: Mapping[str, Any], axis: str) -> dict[str, Any]:
    """Return what an axis of `NAMED` may name: each key of its sections with its value."""
    return {name: value for key in NAMED[axis] for name, value in _section(config, key).items()}


def check(config: Mapping[str, Any], *, schema: Path, files: Iterable[Path] = ()) -> None:
    """Check a merged configuration.

    Args:
        config: what is to be used, after `--configfile` and `--config`.
        schema: the JSON Schema.
        files: the files it was read from, to be read strictly and to find line numbers in.

    Raises:
        ConfigError: with each mistake, its file and line where they are known.
    """
    parsed = {file: strict_yaml.parse(file) for file in files}
    places = {path: (file, line) for file, found in parsed.items() for path, line in found.lines.items()}
    mistakes = [mistake for found in parsed.values() for mistake in found.mistakes]
    of_schema = list(_against_schema(config, schema))
    # Of what is missing or unknown, and of a name, the schema says nothing about what is there.
    refused = [mistake.path for mistake, is_final in of_schema if is_final]
    later = (each for each in _meaning(config) if not any(each.path[: len(path)] == path for path in refused))
    mistakes += (_placed(mistake, places) for mistake in (*(each for each, _ in of_schema), *later))
    if mistakes:
        raise ConfigError(*mistakes)


def _placed(mistake: Mistake, places: Mapping[tuple[Key, ...], tuple[Path, int]]) -> Mistake:
    """Return a mistake with the file and the line of the innermost of its keys that stands in a file."""
    for end in range(len(mistake.path), 0, -1):
        if mistake.path[:end] in places:
            file, line = places[mistake.path[:end]]
            return dataclasses.replace(mistake, file=file, line=line)
    return mistake


# -- against the schema ------------------------------------------------------------------------------------------------


def _against_schema(config: Mapping[str, Any], schema: Path) -> Iterator[tuple[Mistake, bool]]:
    """Yield what the schema refuses, each with whether what stands there need not be looked at further."""
    found = _validator(schema).iter_errors(config)
    for error in sorted(found, key=lambda error: [str(part) for part in error.absolute_path]):
        is_final = error.validator != "required" and "propertyNames" not in error.schema_path
        for mistake in _mistakes_of(error):
            yield mistake, is_final


def _validator(schema: Path) -> Any:
    import jsonschema  # 0.2 s, and jobs read settings that are checked already

    # JSON Schema takes 7.0 for a whole number, and Python's range() does not.
    strict = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    made = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=strict)
    return made(yaml.safe_load(schema.read_text(encoding="utf-8")))


def _mistakes_of(error: jsonschema.ValidationError) -> Iterator[Mistake]:
    path: tuple[Key, ...] = tuple(part if isinstance(part, int) else str(part) for part in error.absolute_path)
    schema: Any = error.schema
    instance: Any = error.instance
    if error.validator == "additionalProperties":
        valid = schema["properties"]
        for key in sorted(set(map(str, instance)) - set(valid)):
            yield Mistake("unknown", f"is not a key of the configuration{hint(key, valid)}", (*path, key))
    elif error.validator == "required":
        for key in schema["required"]:
            if key not in instance:
                yield Mistake("missing", "must be given, and it is missing", (*path, key))
    else:
        yield Mistake("value", f"must be {schema.get('description', error.message)}, got {instance!r}", path)


# -- what the schema cannot see ----------------------------------------------------------------------------------------


def _meaning(config: Mapping[str, Any]) -> Iterator[Mistake]:
    yield from _shapes(config)
    yield from _models(config)
    yield from _kernels(config)
    yield from _vocabularies(config)
    yield from _prices(config)
    yield from _rungs(config)
    for name, scales in _section(config, "experiments").items():
        if name not in experiments.names():
            told = f"is not an experiment{hint(name, experiments.names())}"
            yield Mistake("unknown", told, ("experiments", name))
            continue
        for scale, products in scales.items() if isinstance(scales, Mapping) else ():
            try:
                grid = grids.expand(experiments.load(name).cell, products, where=("experiments", name, scale))
            except ConfigError as error:
                yield from error.mistakes
            else:
                yield from _names(config, grid, ("experiments", name, scale))
                yield from _ranks(config, products, ("experiments", name, scale))


def _shapes(config: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what is wrong with the sizes and presets themselves."""
    kinds: tuple[type[Shape], ...] = (ModelSize, Preset)
    for kind in kinds:
        for name, section in _section(config, kind.key).items():
            try:
                kind.from_config(name, section)
            except ShapeError as error:
                yield from (Mistake("value", problem.message, problem.path) for problem in error.problems)


def _rungs(config: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what is wrong with the settings of the ladder's rungs."""
    for name, values in _section(config, "rungs").items():
        if isinstance(values, Mapping):
            for key, message in rung_mistakes(values, _section(config, "attention")).items():
                yield Mistake("value", message, ("rungs", name, key))


def _models(config: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what is wrong with the models beside the sizes."""
    for name, section in _section(config, "models").items():
        if name in _section(config, "sizes"):
            yield Mistake("value", "must have a name that no size has", ("models", name))
        try:
            OwnModel.from_config(name, section) if is_own(section) else Architecture.from_config(name, section)
        except ShapeError as error:
            yield from (Mistake("value", problem.message, problem.path) for problem in error.problems)


def _kernels(config: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield what is wrong with the attention kernels of one's own."""
    axes = {axis for name in experiments.names() for axis in cells.axes(experiments.load(name).cell) if axis.section}
    for section, built_in in {(str(axis.section), axis.choices or ()) for axis in axes}:
        for name, where in _section(config, section).items():
            if name in built_in:
                yield Mistake("value", "must have a name that no implementation has", (section, name))
            elif not is_function(where):
                yield Mistake("value", f"must be path.py:function, got {where!r}", (section, name))


def _vocabularies(config: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield each vocabulary of a size that is too small for the prepared tokens."""
    least = config.get("vocabulary")
    if type(least) is not int or _section(config, "data").get("source") == "synthetic":
        return
    for key in NAMED["size"]:
        for name, section in _section(config, key).items():
            found = section.get("vocabulary") if isinstance(section, Mapping) else None
            if type(found) is int and 0 < found < least:
                told = f"must be at least `vocabulary` ({least}), got {found}"
                yield Mistake("value", told, (key, name, "vocabulary"))


def _prices(config: Mapping[str, Any]) -> Iterator[Mistake]:
    """Yield each price that is neither of renting nor of buying."""
    for name, section in _section(config, "prices").items():
        if isinstance(section, Mapping):
            given = [key for key in (*RENTED, *BOUGHT) if key in section]
            if given not in (list(RENTED), list(BOUGHT)):
                valid = f"either {RENTED[0]}, or {', '.join(BOUGHT)}"
                told = f"must have {valid}, got {', '.join(given) or 'none of them'}"
                yield Mistake("value", told, ("prices", name))


def _names(config: Mapping[str, Any], grid: Iterable[Any], path: tuple[Key, ...]) -> Iterator[Mistake]:
    """Yield each size, preset and kernel of one's own that a grid names and that is not there."""
    for axis in NAMED:
        there = entries(config, axis)
        if not there and axis == "size":
            continue
        for each in sorted({getattr(cell, axis) for cell in grid if hasattr(cell, axis)} - there.keys()):
            yield Mistake("unknown", f"names the {axis} {each!r}, which does not exist{hint(each, there)}", path)
    if grid := tuple(grid):
        for own in (each for each in grid[0].axes() if each.section):
            valid = [*(own.choices or ()), *_section(config, str(own.section))]
            for each in sorted({getattr(cell, own.name) for cell in grid}.difference(valid)):
                told = f"names the {own.name} {each!r}, which does not exist{hint(each, valid)}"
                yield Mistake("unknown", told, path)


def _ranks(config: Mapping[str, Any], products: Iterable[Any], path: tuple[Key, ...]) -> Iterator[Mistake]:
    """Yield each number of ranks that has too few threads; what is only predicted needs none."""
    for index, product in enumerate(products):
        most = _threads(config) if path[-1] == "cpu" and product.get("source") != ["predicted"] else None
        for ranks in product.get("ranks", ()):
            if most is not None and ranks > most:
                valid = f"from 1 to `protocol.threads` ({most}), one thread for each rank"
                yield Mistake("value", f"must be {valid}, got {ranks}", (*path, index, "ranks"))


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a mapping of the configuration, an empty one where it is none: the schema says so then."""
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def _threads(config: Mapping[str, Any]) -> int | None:
    """Return how many threads the configuration itself names; `auto` is for the machine to say, when it measures."""
    threads = _section(config, "protocol").get("threads")
    return threads if type(threads) is int else None
