"""One process that interprets the Triton kernels, shared by all tests of this folder."""

from collections.abc import Iterator

import pytest
from tests.testing.interpreter import Call, interpreter


@pytest.fixture(scope="session")
def interpreted() -> Iterator[Call]:
    """Return a function that calls another one in the process that interprets the kernels."""
    pytest.importorskip("triton")  # macOS has none
    with interpreter() as call:
        yield call
