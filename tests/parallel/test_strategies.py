"""The table of strategies: every one trains like one process, and what is unknown is refused."""

from __future__ import annotations

import pytest
from tests.parallel import checks, strategies_on_ranks


@pytest.fixture(scope="module")
def failures() -> dict[str, str]:
    return checks.on_ranks(strategies_on_ranks, 2)


@pytest.mark.parametrize("name", checks.names(strategies_on_ranks))
def test_on_two_ranks(failures: dict[str, str], name: str) -> None:
    assert failures[name] == "", failures[name]
