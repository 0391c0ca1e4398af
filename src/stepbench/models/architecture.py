"""The architectures of decoders that are built in, and which descriptions of one are valid.

`models:` in config.yaml describes each model by its numbers. `llama` covers LLaMA, Mistral, Qwen and their like:
RMSNorm, rotary positions and SwiGLU, with query heads that may share key heads, perhaps a norm of queries and keys, and
an embedding that may be the head as well. `gpt2` is GPT-2: LayerNorm, learned positions, GELU and biases. A size of
`sizes:` is the plain `llama`.

This module imports only the standard library, because the Snakefile imports it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Self

from stepbench.models.sizes import ModelSize, Problem, ShapeError

LLAMA, GPT2 = ARCHITECTURES = ("llama", "gpt2")
ROPE_BASE = 10_000.0
EPS = 1e-5
POSITIONS = 1024  # of GPT-2
_OF_LLAMA = ("key_heads", "head_dim", "qk_norm", "rope_base", "rope_scaling")


@dataclass(frozen=True)
class RopeScaling:
    """How LLaMA 3.1 stretches the wavelengths of rotary positions beyond the context that it was first trained on.

    Attributes:
        factor: of the long wavelengths.
        low_frequency_factor: wavelengths above `original_context` / this are stretched by the whole factor.
        high_frequency_factor: those below `original_context` / this are left alone; between the two it fades.
        original_context: in tokens.

    Source: transformers, modeling_rope_utils.py, `_compute_llama3_parameters`.
    """

    factor: float
    low_frequency_factor: float
    high_frequency_factor: float
    original_context: int


@dataclass(frozen=True)
class Architecture(ModelSize):
    """A decoder that is built in: its shape, and what distinguishes it from others of that shape.

    Attributes:
        architecture: one of `ARCHITECTURES`.
        key_heads: Heads of keys and values; divides `heads`. 0 becomes `heads`.
        head_dim: Width of one head. 0 becomes `d_model / heads`.
        tied: Whether the head's matrix is the embedding's.
        qk_norm: Whether an RMSNorm over each head normalises queries and keys before they are rotated.
        positions: Of `gpt2`: number of learned positions, the longest context. 0 becomes `POSITIONS` there.
        rope_base: Base of the rotary frequencies.
        rope_scaling: As LLaMA 3.1 has it, or None.
        eps: Added to the variance in every norm.

    Raises:
        ShapeError: The description is invalid.
    """

    key = "models"
    architecture: str = LLAMA
    key_heads: int = 0
    head_dim: int = 0
    tied: bool = False
    qk_norm: bool = False
    positions: int = 0
    rope_base: float = ROPE_BASE
    rope_scaling: RopeScaling | None = None
    eps: float = EPS

    def __post_init__(self) -> None:
        if isinstance(self.rope_scaling, Mapping):  # as config.yaml and JSON hold it
            object.__setattr__(self, "rope_scaling", RopeScaling(**self.rope_scaling))
        follows = {
            "key_heads": self.heads,
            "head_dim": self.d_model // self.heads
            if type(self.heads) is type(self.d_model) is int and self.heads
            else 0,
            "positions": POSITIONS if self.architecture == GPT2 else 0,
        }
        # What follows anyway counts as left out: a copy with fewer layers, or one read from JSON, gives it.
        left_out = {name: None for name, value in follows.items() if getattr(self, name) in (0, value)}
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        if problems := list(_problems(given | left_out)):
            raise ShapeError(problems)
        for name, value in follows.items():
            object.__setattr__(self, name, getattr(self, name) or value)

    @classmethod
    def of(cls, size: ModelSize) -> Self:
        """Return the architecture of a size: itself, or the plain `llama` of that shape."""
        return size if isinstance(size, cls) else cls(**dataclasses.asdict(size))

    @classmethod
    def from_config(cls, name: str, section: object) -> Self:
        """Return the architecture that `models.<name>` of config.yaml describes.

        Raises:
            ShapeError: The description is invalid.
        """
        at = (cls.key, name)
        known = [field.name for field in fields(cls)]
        if not isinstance(section, Mapping):
            raise ShapeError([Problem(at, f"must be a mapping of {', '.join(known)}, got {section!r}")])
        problems = [
            Problem(at, f"must hold only the fields {', '.join(known)}, got {each!r}")
            for each in section
            if each not in known
        ]
        needed = [field.name for field in fields(cls) if field.default is MISSING]
        problems += [Problem((*at, each), f"must be given, got no {each}") for each in needed if each not in section]
        scaling = section.get("rope_scaling")
        if scaling is not None and (wrong := _scaling_problem(scaling)):
            problems.append(Problem((*at, "rope_scaling"), wrong))
        given = {each: section[each] for each in known if each in section and each != "rope_scaling"}
        problems += [Problem((*at, *each.path), each.message) for each in _problems(given)]
        if problems:
            raise ShapeError(problems)
        return cls(**section)


def _problems(values: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield every mistake in the values of fields; None is what was left out."""
    there = {name: value for name, value in values.items() if value is not None}
    whole: dict[str, int] = {}
    for name in ("d_model", "d_ff", "layers", "heads", "vocabulary", "key_heads", "head_dim", "positions"):
        if name in there and not (type(there[name]) is int and there[name] > 0):
            yield Problem((name,), f"must be a positive integer, got {there[name]!r}")
        elif name in there:
            whole[name] = there[name]
    for name in ("tied", "qk_norm"):
        if name in there and type(there[name]) is not bool:
            yield Problem((name,), f"must be true or false, got {there[name]!r}")
    for name in ("rope_base", "eps"):
        if name in there and not (type(there[name]) in (int, float) and there[name] > 0):
            yield Problem((name,), f"must be a positive number, got {there[name]!r}")
    architecture = there.get("architecture", LLAMA)
    if architecture not in ARCHITECTURES:
        yield Problem(("architecture",), f"must be one of {', '.join(ARCHITECTURES)}, got {architecture!r}")
    yield from _misplaced(architecture, there)
    yield from _shape_problems(architecture, whole)


def _misplaced(architecture: str, there: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is given that the architecture does not have."""
    defaults = {field.name: field.default for field in fields(Architecture)}
    foreign = {GPT2: _OF_LLAMA, LLAMA: ("positions",)}.get(architecture, ())
    for name in foreign:
        if name in there and there[name] != defaults[name]:
            yield Problem((name,), f"must be left out of the architecture {architecture}, got {there[name]!r}")


def _shape_problems(architecture: str, whole: Mapping[str, int]) -> Iterator[Problem]:
    if "heads" not in whole or "d_model" not in whole:
        return
    heads, d_model = whole["heads"], whole["d_model"]
    if "head_dim" not in whole and d_model % heads:
        yield Problem(("heads",), f"must divide d_model ({d_model}), got {heads}")
    elif architecture == LLAMA and (head_dim := whole.get("head_dim", d_model // heads)) % 2:
        where = "head_dim" if "head_dim" in whole else "heads"
        yield Problem((where,), f"must give an even head_dim, because rotary positions rotate pairs, got {head_dim}")
    if "key_heads" in whole and heads % whole["key_heads"]:
        yield Problem(("key_heads",), f"must divide heads ({heads}), got {whole['key_heads']}")


def _scaling_problem(section: object) -> str | None:
    names = [field.name for field in fields(RopeScaling)]
    if not isinstance(section, Mapping) or set(section) != set(names):
        return f"must be a mapping of {', '.join(names)}, got {section!r}"
    wrong = [name for name in names if type(section[name]) not in (int, float) or not section[name] > 0]
    return f"must hold positive numbers, got {section[wrong[0]]!r} for {wrong[0]}" if wrong else None
