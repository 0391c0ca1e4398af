"""What the Snakefile asks; Snakemake itself runs in tests/workflow."""

import re
from dataclasses import make_dataclass
from types import SimpleNamespace
from typing import Literal

import pytest

from stepbench import cells, workflow
from stepbench.experiments import experiment as experiments


def test_every_axis_of_every_experiment_has_its_pattern() -> None:
    found = workflow.wildcards_of()
    axes = {axis.name: axis for name in experiments.names() for axis in cells.axes(experiments.load(name).cell)}
    assert found.keys() == axes.keys() | {"shards"}
    for name, axis in axes.items():
        assert re.fullmatch(
            found[name], axis.choices[0] if axis.choices else {int: "0", str: "x", bool: "true"}[axis.type]
        )
        assert not re.fullmatch(found[name], "x; touch PWNED")
        assert not re.fullmatch(found[name], "a/b")


def test_one_axis_may_have_other_words_in_another_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    types = {
        "one": make_dataclass("One", [("dtype", Literal["a", "b"])]),
        "two": make_dataclass("Two", [("dtype", Literal["c"])]),
    }
    monkeypatch.setattr(experiments, "names", lambda: ("one", "two"))
    monkeypatch.setattr(experiments, "load", lambda name: SimpleNamespace(cell=types[name]))
    found = workflow.wildcards_of()["dtype"]
    assert [bool(re.fullmatch(found, word)) for word in ("a", "b", "c", "d", "ac")] == [True, True, True, False, False]


def test_one_axis_has_one_type_in_all_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    types = {"one": make_dataclass("One", [("size", str)]), "two": make_dataclass("Two", [("size", int)])}
    monkeypatch.setattr(experiments, "names", lambda: ("one", "two"))
    monkeypatch.setattr(experiments, "load", lambda name: SimpleNamespace(cell=types[name]))
    with pytest.raises(TypeError, match="axis `size` of two must have the type that it has in other experiments"):
        workflow.wildcards_of()
