"""In what two fingerprints differ."""

import pytest

from stepbench.pipeline import fingerprint

TODAY = {
    "source": {"stepbench.a": "1", "stepbench.b": "2"},
    "definition": {"size": {"d_model": 128, "layers": 4}, "protocol": {"seed": 0}, "data": {}},
    "software": {"torch": "2.13.0", "triton": None},
    "machine": {"threads": 2},
}


def test_equal_fingerprints_have_no_difference_whatever_the_order_of_keys() -> None:
    other = {part: dict(reversed(values.items())) for part, values in reversed(TODAY.items())}
    other["definition"]["size"] = {"layers": 4, "d_model": 128}
    assert fingerprint.difference(other, TODAY) == []


@pytest.mark.parametrize(
    ("old", "phrases"),
    [
        ({"source": {"stepbench.a": "0", "stepbench.b": "2"}}, ["source: stepbench.a changed"]),
        ({"source": {"stepbench.b": "2"}}, ["source: stepbench.a is new"]),
        ({"source": TODAY["source"] | {"stepbench.c": "3"}}, ["source: stepbench.c is gone"]),
        ({"software": {"torch": "2.11.0", "triton": None}}, ["software: torch was '2.11.0', is '2.13.0'"]),
        ({"software": {"torch": "2.13.0"}}, ["software: triton was None, is None"]),
        ({"machine": {"threads": 1}}, ["machine: threads was 1, is 2"]),
        (
            {"definition": {"size": {"d_model": 4, "layers": 128}, "protocol": {"seed": 0}, "data": {}}},
            ["definition: size.d_model was 4, is 128", "definition: size.layers was 128, is 4"],
        ),
        (
            {"definition": {"size": TODAY["definition"]["size"], "protocol": {"seed": 0}}},
            ["definition: data was None, is {}"],
        ),
    ],
)
def test_a_difference_is_named(old: dict, phrases: list[str]) -> None:
    assert list(map(str, fingerprint.difference(TODAY | old, TODAY))) == phrases


@pytest.mark.parametrize("old", [None, [], "text", 3])
def test_a_record_without_fingerprint_differs(old: object) -> None:
    (found,) = fingerprint.difference(old, TODAY)
    assert str(found) == "the record has no fingerprint"


@pytest.mark.parametrize("old", [{}, {"source": 3}, {"source": []}, {"source": {"a": []}}, {"definition": {"": {}}}])
def test_a_fingerprint_of_any_other_shape_differs(old: dict) -> None:
    found = fingerprint.difference(old, TODAY)
    assert found
    assert all(str(each) for each in found)
