"""Models of one's own: a Hugging Face `config.json` on disk, or a Python function that builds a module.

Here is what config.yaml says of one (`models:`); `stepbench.models.own_module` builds it. Reading config.yaml never
opens the file, let alone runs it. This module imports only the standard library, because the Snakefile imports it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from stepbench.models.sizes import Problem, ShapeError

SOURCES = ("hf", "module")
_FUNCTION = re.compile(r"[^:{}<>\x00-\x1f]+\.py:[A-Za-z_][A-Za-z0-9_]*")
_CONFIG = re.compile(r"[^{}<>\x00-\x1f]+\.json")
_DOTTED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class OwnModel:
    """A decoder that is not built in.

    Attributes:
        hf: path of a Hugging Face config.json, or None.
        module: `path.py:function`, where the function builds an nn.Module, or None. One of the two is given.
        vocabulary: number of token ids; None is that of config.json, or of config.yaml.
        blocks: dotted name of the ModuleList of blocks; None where it is the only one.
        sharded: names of the classes whose matrices FSDP shards; () are Linear, Embedding and transformers' Conv1D.
        content: digest of the file.
        transformers: the version that builds `hf`, or None.
        layers: how many blocks to build, where that can be chosen; None for all.
    """

    key: ClassVar[str] = "models"
    hf: str | None = None
    module: str | None = None
    vocabulary: int | None = None
    blocks: str | None = None
    sharded: tuple[str, ...] = ()
    content: str = ""
    transformers: str | None = None
    layers: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sharded", tuple(self.sharded))  # JSON has lists

    @property
    def path(self) -> str:
        """The path of its file."""
        return self.hf or str(self.module).rpartition(":")[0]

    @property
    def source(self) -> str:
        """Where it comes from, as config.yaml says it."""
        return self.hf or str(self.module)

    @classmethod
    def from_config(cls, name: str, section: Mapping[str, Any]) -> Self:
        """Return the model that `models.<name>` of config.yaml describes.

        Raises:
            ShapeError: The description is invalid.
        """
        at = (cls.key, name)
        valid = ("vocabulary", "blocks", "sharded", next(source for source in SOURCES if source in section))
        problems = [
            Problem(at, f"must hold only the fields {', '.join(reversed(valid))}, got {each!r}")
            for each in section
            if each not in valid
        ]
        for key, wanted, pattern in (
            ("hf", "the path of a .json file", _CONFIG),
            ("module", "path.py:function", _FUNCTION),
            ("blocks", "a dotted name of a module, such as model.layers", _DOTTED),
        ):
            if key in valid and key in section and not _matches(pattern, section[key]):
                problems.append(Problem((*at, key), f"must be {wanted}, got {section[key]!r}"))
        names = section.get("sharded", ["Linear"])
        if not isinstance(names, list) or not names or not all(_matches(_WORD, each) for each in names):
            problems.append(Problem((*at, "sharded"), f"must be a list of names of classes, got {names!r}"))
        if problems:
            raise ShapeError(problems)
        return cls(**section)


def is_own(section: Any) -> bool:
    """Return whether an entry of `models` in config.yaml is one of these."""
    return isinstance(section, Mapping) and any(source in section for source in SOURCES)


def is_function(text: object) -> bool:
    """Return whether a text is `path.py:function`."""
    return _matches(_FUNCTION, text)


def _matches(pattern: re.Pattern[str], text: object) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None
