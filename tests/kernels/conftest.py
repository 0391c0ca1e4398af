"""One process with interpreted kernels for all tests of this folder."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.testing.interpreter import Call, interpreter


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Call]:
    """Return a function that calls another one where Triton's kernels are interpreted."""
    with interpreter() as call:
        yield call


# These look at compiled kernels at their shipped tile shapes, and `tiles.json` does not hold all yet: see docs/log.md.
NEED_TILES = ["test_launch.py", "test_resources.py", "test_tiles.py", "test_tune.py"]
TILES = Path(__file__).parents[2] / "src/stepbench/kernels/triton/tiles.json"
collect_ignore = [] if {"sm_80", "sm_90", "sm_100"} <= json.loads(TILES.read_text()).keys() else NEED_TILES


def pytest_report_header() -> str | None:
    """Say aloud what is left out."""
    return (
        f"left out, because tiles.json lacks an architecture: {', '.join(collect_ignore)}" if collect_ignore else None
    )
