import dataclasses
import re
import string
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells

SCHEMES = ("naive", "flat.v2", "bucketed")


@dataclass(frozen=True)
class Cell(cells.Cell):
    """Every kind of axis once."""

    size: str
    context: int
    causal: bool
    scheme: Literal["naive", "flat.v2", "bucketed"]
    bucket_mib: int | None = None
    variant: Literal["a", "b"] | None = None
    tag: str | None = None
    replicate: int = 0


CELL = Cell(size="2.7B", context=128, causal=True, scheme="flat.v2")
NAME = "size~2.7B,context~128,causal~true,scheme~flat.v2,bucket_mib~none,variant~none,tag~none,replicate~0"

words = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,11}", fullmatch=True)
values = st.builds(
    Cell,
    size=words,
    context=st.integers(1, 10**12),
    causal=st.booleans(),
    scheme=st.sampled_from(SCHEMES),
    bucket_mib=st.none() | st.integers(1, 10**6),
    variant=st.none() | st.sampled_from(["a", "b"]),
    tag=st.none() | words.filter(lambda word: word != "none"),
    replicate=st.integers(0, 99),
)


def test_a_cell_has_one_readable_name() -> None:
    assert CELL.name == NAME
    assert cells.parse(Cell, NAME) == CELL


@given(values)
def test_name_and_parse_are_inverse(cell: Cell) -> None:
    assert cells.parse(Cell, cell.name) == cell


@given(values, values)
def test_two_cells_never_share_a_name(one: Cell, other: Cell) -> None:
    assert (one.name == other.name) == (one == other)


almost = r"size~[^,]{0,9},context~.{1,9},causal~true,scheme~naive,bucket_mib~none,variant~a,tag~x,replicate~[0-9]{1,3}"


@given(st.text(max_size=120) | st.from_regex(almost))
@example("")
@example(NAME + "\n")
def test_what_parses_is_canonical(text: str) -> None:
    try:
        cell = cells.parse(Cell, text)
    except ValueError:
        return
    assert cell.name == text


@given(values)
def test_the_wildcards_constraints_split_a_name_in_one_way(cell: Cell) -> None:
    regex = ",".join(f"{axis.name}~(?P<{axis.name}>{axis.pattern})" for axis in cells.axes(Cell))
    match = re.fullmatch(regex, cell.name)
    assert match
    assert {axis.name: axis.parse(match[axis.name]) for axis in cells.axes(Cell)} == cell.values


@given(values)
def test_a_name_is_safe_in_paths_and_shells(cell: Cell) -> None:
    assert set(cell.name) <= set(string.ascii_letters + string.digits + "~,._-")
    assert not cell.name.startswith(("-", "."))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size~2.7B,", "", "must name the axes size, context"),
        ("size~2.7B,", "size~2.7B,size~2.7B,", "must name the axes size, context"),
        ("size~2.7B,context~128", "context~128,size~2.7B", "in this order"),
        ("replicate~0", "replicate~0,more~1", "must name the axes"),
        ("replicate~0", "replikate~0", "must name the axes"),
        ("replicate~0", "replicate", "`replicate` must be a whole number from 0 without leading zeros, got ''"),
        ("replicate~0", "replicate~00", "got '00'"),
        ("replicate~0", "replicate~-1", "got '-1'"),
        ("replicate~0", "replicate~+1", "got '+1'"),
        ("replicate~0", "replicate~1.0", "got '1.0'"),
        ("replicate~0", "replicate~1_0", "got '1_0'"),
        ("replicate~0", "replicate~٣", "`replicate` must be a whole number"),
        ("replicate~0", "replicate~0 ", "got '0 '"),
        ("replicate~0", "replicate~0\n", "`replicate` must be"),
        ("replicate~0", "replicate~none", "`replicate` must be"),
        ("context~128", "context~0128", "`context` must be"),
        ("context~128", "context~0", "`context` must be a whole number from 1 without leading zeros, got '0'"),
        ("bucket_mib~none", "bucket_mib~0", "`bucket_mib` must be a whole number from 1 without leading zeros or none"),
        ("causal~true", "causal~True", "`causal` must be true or false, got 'True'"),
        ("causal~true", "causal~1", "`causal` must be true or false, got '1'"),
        ("scheme~flat.v2", "scheme~flatxv2", "`scheme` must be one of naive, flat.v2, bucketed, got 'flatxv2'"),
        ("scheme~flat.v2", "scheme~Naive", "`scheme` must be one of naive, flat.v2, bucketed"),
        ("bucket_mib~none", "bucket_mib~None", "or none, got 'None'"),
        ("bucket_mib~none", "bucket_mib~", "`bucket_mib` must be"),
        ("variant~none", "variant~c", "`variant` must be one of a, b or none, got 'c'"),
        ("size~2.7B", "size~", "`size` must be a word"),
        ("size~2.7B", "size~..", "`size` must be a word"),
        ("size~2.7B", "size~../../etc", "`size` must be a word"),
        ("size~2.7B", "size~a b", "`size` must be a word"),
        ("size~2.7B", "size~x; touch PWNED", "`size` must be a word"),
        ("size~2.7B", "size~$(touch PWNED)", "`size` must be a word"),
        ("size~2.7B", "size~{machine}", "`size` must be a word"),
        ("size~2.7B", "size~na~no", "`size` must be a word"),
        ("size~2.7B", "size~na\nno", "`size` must be a word"),
        ("size~2.7B", "size~\N{RIGHT-TO-LEFT OVERRIDE}onan", "`size` must be a word"),
        ("size~2.7B", "size~nänö", "`size` must be a word"),
        ("size~2.7B", "size~" + "x" * 300, "at most 240 characters, got"),
    ],
)
def test_a_text_that_is_not_a_cells_one_name_is_refused(old: str, new: str, message: str) -> None:
    assert old in NAME
    with pytest.raises(ValueError, match=re.escape(message)):
        cells.parse(Cell, NAME.replace(old, new, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": "x; touch PWNED"}, "`size` must be a word"),
        ({"size": ""}, "`size` must be a word"),
        ({"size": 3}, "`size` must be a word of letters, digits, '.', '_' and '-', got 3"),
        ({"context": "128"}, "`context` must be a whole number"),
        ({"context": 128.0}, "`context` must be a whole number"),
        ({"context": True}, "`context` must be a whole number"),
        ({"context": 0}, "`context` must be a whole number from 1 without leading zeros, got 0"),
        ({"context": -1}, "`context` must be a whole number"),
        ({"context": None}, "`context` must be a whole number"),
        ({"causal": 1}, "`causal` must be true or false"),
        ({"scheme": "other"}, "`scheme` must be one of"),
        ({"tag": "none"}, "`tag` must be"),
        ({"size": "x" * 300}, f"at most 240 characters, got {len(NAME) + 296}"),
    ],
)
def test_a_cell_that_holds_what_its_axes_do_not_allow_has_no_name(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        assert dataclasses.replace(CELL, **{"replicate": 7, **change}).name


@pytest.mark.parametrize("hint", [float, list[int], int | str, int | str | None, Literal[1, 2], Literal["a", 1], Any])
def test_axes_of_other_types_are_refused(hint: Any) -> None:
    with pytest.raises(TypeError, match="axis `axis` must"):
        cells.axes(dataclasses.make_dataclass("Odd", [("axis", hint)], frozen=True))


def test_none_cannot_be_a_choice_beside_no_value() -> None:
    with pytest.raises(TypeError, match="axis `axis` must"):
        cells.axes(dataclasses.make_dataclass("Odd", [("axis", Literal["none", "x"] | None)], frozen=True))
    (axis,) = cells.axes(dataclasses.make_dataclass("Even", [("axis", Literal["none", "x"])], frozen=True))
    assert axis.parse("none") == "none"


def test_a_name_has_every_axis_in_order() -> None:
    assert [part.partition("~")[0] for part in CELL.name.split(",")] == [axis.name for axis in cells.axes(Cell)]
    assert CELL.values["bucket_mib"] is None


def test_only_what_may_be_nothing_begins_at_zero() -> None:
    found = {(name, axis.name) for name in experiments.names() for axis in cells.axes(experiments.load(name).cell)}
    zero = {
        (name, axis.name)
        for name in experiments.names()
        for axis in cells.axes(experiments.load(name).cell)
        if axis.type is int and re.fullmatch(axis.pattern, "0")
    }
    replicates = {each for each in found if each[1] == "replicate"}
    assert zero == replicates | {("warmup", "warmup"), ("fsdp", "prefetch")}


@pytest.mark.parametrize("name", experiments.names())
def test_every_experiment_has_a_cell_with_a_name(name: str) -> None:
    cell_type = experiments.load(name).cell
    some = {int: "1", str: "nano", bool: "true"}
    axes = cells.axes(cell_type)
    text = ",".join(f"{axis.name}~{axis.choices[0] if axis.choices else some[axis.type]}" for axis in axes)
    assert cells.parse(cell_type, text).name == text
