"""Bytes over time from scripted changes: who owns what, what lives how long, and what the peaks are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepbench.measure.memory_timeline import CATEGORIES, Change, Claim, Span, Timeline, build

SPANS = [Span("forward", 10, 20), Span("backward", 20.5, 30), Span("optimizer", 30.5, 40)]


def parts(level: dict[str, int]) -> dict[str, int]:
    return {category: value for category, value in level.items() if value}


@pytest.fixture
def step() -> Timeline:
    """A step of one parameter (100 B) with its state (200 B) and an old gradient (100 B) from the step before."""
    changes = [
        Change(1, 1, 100),  # the parameter
        Change(2, 2, 200),  # the optimizer's state
        Change(3, 3, 100),  # the old gradient
        Change(11, 4, 50),  # kept for the backward pass
        Change(12, 5, 7),  # comes and goes within the forward pass
        Change(13, 5, -7),
        Change(21, 3, -100),  # the old gradient is forgotten
        Change(22, 6, 30),  # on the way to the new one
        Change(23, 3, 100),  # the new gradient, at the old one's address
        Change(24, 6, -30),
        Change(25, 4, -50),
        Change(31, 7, 100),
        Change(32, 7, -100),
    ]
    claims = [
        Claim(3.5, 1, "parameters"),
        Claim(3.5, 2, "optimizer_state"),
        Claim(3.5, 3, "gradients"),
        Claim(30, 3, "gradients"),
    ]
    return build(changes, claims, SPANS, unit="changes", built=0)


def test_each_piece_belongs_to_its_owner_or_to_where_it_lived(step: Timeline) -> None:
    assert parts(step.before()) == {"parameters": 100, "optimizer_state": 200, "gradients": 100}
    forward, backward, optimizer = SPANS
    assert parts(step.peak(forward)) == {
        "parameters": 100, "gradients": 100, "optimizer_state": 200, "activations": 50, "temporary": 7,
    }  # fmt: skip
    assert parts(step.after(forward)) == {**parts(step.before()), "activations": 50}
    assert parts(step.peak(backward)) == {
        "parameters": 100, "gradients": 100, "optimizer_state": 200, "activations": 50, "temporary": 30,
    }  # fmt: skip
    assert parts(step.after(backward)) == parts(step.before())
    assert parts(step.peak(optimizer)) == {**parts(step.before()), "temporary": 100}
    assert sum(step.peak().values()) == 500
    assert step.highest(("activations", "temporary"), backward) == 80


def test_a_record_keeps_the_peaks_by_phase_and_category(step: Timeline) -> None:
    scalars = step.scalars()
    assert scalars["peak_memory_bytes"] == 500
    assert [scalars[f"{phase}_peak_bytes"] for phase in ("forward", "backward", "optimizer")] == [457, 480, 500]
    assert scalars["peak_temporary_bytes"] == 100
    assert scalars["before_gradients_bytes"] == 100
    assert scalars["forward_after_activations_bytes"] == 50
    assert all(key.endswith("_bytes") for key in scalars)


def test_the_picture_begins_at_zero_and_ends_with_the_last_phase(step: Timeline) -> None:
    details = step.details()
    assert details["moments"][0] == 0
    assert details["moments"] == sorted(details["moments"])
    assert details["spans"] == [["forward", 0, 10], ["backward", 10.5, 20], ["optimizer", 20.5, 30]]
    assert list(details["bytes"]) == list(CATEGORIES)
    assert all(len(values) == len(details["moments"]) for values in details["bytes"].values())


@given(sizes=st.lists(st.integers(1, 10**12), min_size=1, max_size=60), points=st.integers(1, 70))
def test_thinning_never_loses_the_peak(sizes: list[int], points: int) -> None:
    changes = [
        change
        for index, size in enumerate(sizes)
        for change in (Change(2 * index, index, size), Change(2 * index + 1, index, -size))
    ]
    timeline = build(changes, [], [Span("forward", 0, 2 * len(sizes))], unit="changes", built=0)
    details = timeline.details(points=points)
    assert len(details["moments"]) <= points + 1
    assert max(map(sum, zip(*details["bytes"].values(), strict=True))) == max(sizes)
    assert timeline.peak() == {**dict.fromkeys(CATEGORIES, 0), "temporary": max(sizes)}


def test_without_a_forward_pass_all_that_nobody_owns_is_temporary() -> None:
    timeline = build([Change(1, 1, 8)], [], [Span("optimizer", 0, 2)], unit="s", built=0)
    assert parts(timeline.peak()) == {"temporary": 8}


def test_an_end_without_a_beginning_is_left_out() -> None:
    timeline = build([Change(1, 9, -8), Change(2, 1, 5)], [], [Span("forward", 0, 3)], unit="s", built=0)
    assert parts(timeline.peak()) == {"activations": 5}


def test_a_step_without_phases_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one phase"):
        build([Change(1, 1, 8)], [], [], unit="s", built=0)
