"""config.yaml: read strictly, checked against config.schema.yaml, all mistakes told at once.

YAML reads `1e-3` as text, `no` as false, `010` as eight, and keeps the last of two equal keys, all without a word. Each
of these is refused by name here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from stepbench.experiments import experiment as experiments
from stepbench.models.presets import Preset
from stepbench.models.sizes import ModelSize
from stepbench.pipeline import grids

if TYPE_CHECKING:
    import jsonschema

SCHEMA = "config.schema.yaml"
NAMED = {"size": "sizes", "preset": "presets"}  # an axis whose values are keys of a section


class ConfigError(ValueError):
    """The configuration cannot be used; one line for each thing that is wrong."""


def load(path: Path) -> dict[str, Any]:
    """Return the content of one YAML file.

    Raises:
        ConfigError: it is missing, not YAML, or holds what YAML silently takes for something else.
    """
    content, (_, mistakes, _) = read(path), _parse(path)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return content


def read(path: Path) -> dict[str, Any]:
    """Return the content of one YAML file as Snakemake takes it; `check` says what is wrong with it.

    Raises:
        ConfigError: it is missing, or does not hold keys and values in YAML.
    """
    content, _, _ = _parse(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: must hold keys and values, got {type(content).__name__}")
    return content


def check(config: Mapping[str, Any], *, schema: Path, files: Iterable[Path] = ()) -> None:
    """Check a merged configuration.

    Args:
        config: what is to be used, after `--configfile` and `--config`.
        schema: the JSON Schema.
        files: the files it was read from, to be read strictly and to find line numbers in.

    Raises:
        ConfigError: one line for each mistake, with the key's path, file and line where known, and what is valid.
    """
    errors: list[str] = []
    refused: list[list[str]] = []
    lines: dict[tuple[str, ...], str] = {}
    for file in files:
        _, mistakes, places = _parse(file)
        errors.extend(mistakes)
        lines.update(places)
    for mistake in sorted(
        _validator(schema).iter_errors(config), key=lambda error: [str(part) for part in error.absolute_path]
    ):
        for path, sentence in _sentences(mistake):
            errors.append(f"{_place(lines, path)}{sentence}")
            # Of what is missing, or of a name, the schema says nothing about what is there.
            refused += [path] if mistake.validator != "required" and "propertyNames" not in mistake.schema_path else []
    for path, sentence in _meaning(config):
        if not any(path[: len(known)] == known for known in refused):
            errors.append(f"{_place(lines, path)}{sentence}")
    if errors:
        raise ConfigError("\n".join(errors))


def _parse(path: Path) -> tuple[Any, list[str], dict[tuple[str, ...], str]]:
    """Return a file's content, what YAML silently takes for something else in it, and the place of each key."""
    try:
        text = path.read_text(encoding="utf-8")
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        mistakes, places = list(_mistakes(root, path)), _lines(root, path)  # before `<<` is resolved, in place
        return None if root is None else loader.construct_document(root), mistakes, places
    except OSError as error:
        raise ConfigError(f"{path}: a configuration file must be readable, got {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # Not YAML's own: bytes that are not UTF-8, a date that does not exist, an alias inside of what it stands for.
        raise ConfigError(f"{path}: must be YAML, got {' '.join(str(error).split())}") from None


def _validator(schema: Path) -> Any:
    import jsonschema  # late: jobs read settings that are checked already

    # JSON Schema takes 7.0 for a whole number, and Python's range() does not.
    strict = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    made = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=strict)
    return made(yaml.safe_load(schema.read_text(encoding="utf-8")))


def _meaning(config: Mapping[str, Any]) -> Iterable[tuple[list[str], str]]:
    """Yield the path and the sentence of each mistake that the schema cannot see in what is there."""
    asked = _section(config, "experiments")
    named: list[tuple[type[ModelSize | Preset], str, Any]] = []
    named += [(ModelSize, name, section) for name, section in _section(config, "sizes").items()]
    named += [(Preset, name, section) for name, section in _section(config, "presets").items()]
    for kind, name, section in named:
        try:
            kind.from_config(name, section)
        except ValueError as error:
            for line in str(error).splitlines():
                yield line.split("`")[1].split("."), line
    for name, scales in asked.items():
        if name not in experiments.names():
            valid = experiments.names()
            yield ["experiments", name], f"`experiments.{name}` is not an experiment{_hint(name, valid)}"
            continue
        for scale, products in scales.items() if isinstance(scales, Mapping) else ():
            where = f"experiments.{name}.{scale}"
            try:
                cells = grids.expand(experiments.load(name).cell, products, where=where)
            except ValueError as error:
                for line in str(error).splitlines():
                    yield line.split("`")[1].replace("[", ".").replace("]", "").split("."), line
                continue
            for axis, key in NAMED.items():
                there = _section(config, key)
                absent = {getattr(cell, axis) for cell in cells if hasattr(cell, axis)} - there.keys()
                for each in sorted(absent) if there or key == "presets" else ():
                    yield ["experiments", name, scale], f"`{where}` names the {axis} {each!r}{_hint(each, there)}"
            for index, product in enumerate(products):
                most = _threads(config) if scale == "cpu" and product.get("source") != ["predicted"] else None
                for ranks in product.get("ranks", ()):
                    if ranks < 1 or (most is not None and ranks > most):
                        most_told = "" if most is None else f" to `protocol.threads` ({most}), a thread for each"
                        place = ["experiments", name, scale, str(index), "ranks"]
                        yield place, f"`{where}[{index}].ranks` must be from 1{most_told}, got {ranks}"


def _section(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return a mapping of the configuration, an empty one where it is none: the schema says so then."""
    found = config.get(key)
    return found if isinstance(found, Mapping) else {}


def _threads(config: Mapping[str, Any]) -> int | None:
    """Return how many threads the configuration itself names; `auto` is for the machine to say, when it measures."""
    threads = _section(config, "protocol").get("threads")
    return threads if type(threads) is int else None


def _sentences(mistake: jsonschema.ValidationError) -> Iterable[tuple[list[str], str]]:
    keys = [str(part) for part in mistake.absolute_path]
    path = ".".join(keys)
    schema: Any = mistake.schema
    instance: Any = mistake.instance
    if mistake.validator == "additionalProperties":
        valid = schema["properties"]
        for key in sorted(set(map(str, instance)) - set(valid)):
            yield (
                [*keys, key],
                f"`{path + '.' if path else ''}{key}` is not a key of the configuration{_hint(key, valid)}",
            )
    elif mistake.validator == "required":
        for key in schema["required"]:
            if key not in instance:
                yield keys, f"`{path + '.' if path else ''}{key}` must be given, and it is missing"
    else:
        yield keys, f"`{path}` must be {schema.get('description', mistake.message)}, got {instance!r}"


def _hint(found: str, valid: Iterable[str]) -> str:
    valid = list(valid)
    close = difflib.get_close_matches(found, valid, n=1)
    return (f" (did you mean {close[0]}?)" if close else "") + f"; valid are {', '.join(valid)}"


def _mistakes(node: yaml.Node | None, path: Path) -> Iterable[str]:
    if node is None:
        return
    where = f"{path}:{node.start_mark.line + 1}: "
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                yield f"{path}:{key.start_mark.line + 1}: the key `{key.value}` must stand once, and it stands twice"
            seen.add(str(key.value))
            yield from _mistakes(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _mistakes(value, path)
    elif isinstance(node, yaml.ScalarNode) and node.style is None:
        kind = node.tag.rpartition(":")[2]
        if kind == "bool" and node.value not in ("true", "false"):
            yield f"{where}a truth value must be written true or false, got {node.value} (quote it if it is a text)"
        elif kind == "int" and not re.fullmatch(r"-?(0|[1-9][0-9]*)", node.value):
            yield f"{where}a whole number must be written in plain decimal digits, got {node.value}"
        elif kind == "float" and not re.fullmatch(r"-?[0-9]+\.[0-9]*([eE][-+][0-9]+)?", node.value):
            yield f"{where}a number must be written in decimal digits like 0.5, got {node.value}"
        elif kind == "str" and re.fullmatch(r"[-+]?[0-9.]+[eE][-+]?[0-9]+", node.value):
            yield f"{where}a number with an exponent must be written like 1.0e-3, got {node.value}, a text to YAML"


def _lines(node: yaml.Node | None, file: Path, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    found: dict[tuple[str, ...], str] = {}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*path, *str(key.value).split("."))
            found[inner] = f"{file}:{key.start_mark.line + 1}: "
            found.update(_lines(value, file, inner))
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            found[(*path, str(index))] = f"{file}:{value.start_mark.line + 1}: "
            found.update(_lines(value, file, (*path, str(index))))
    return found


def _place(lines: Mapping[tuple[str, ...], str], path: list[str]) -> str:
    """Return `file:line: ` of the innermost key of `path` that stands in a file, or nothing."""
    keys = tuple(part for name in path for part in name.split("."))
    for end in range(len(keys), 0, -1):
        if keys[:end] in lines:
            return lines[keys[:end]]
    return ""
