"""The data-parallel strategies on two ranks: what they send and when, what they refuse, what they leave behind."""

from __future__ import annotations

import pytest
from tests.parallel import checks, data_parallel_on_ranks


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    return checks.on_ranks(data_parallel_on_ranks, 2)


@pytest.mark.parametrize("name", checks.names(data_parallel_on_ranks))
def test_on_two_ranks(failures: dict[str, str], name: str) -> None:
    assert failures[name] == "", failures[name]
