"""Copies of the workflow for tests that run it; each test checks that no process of its copy is left."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.workflow.bench_copy")

from tests.workflow.bench_copy import Copy  # noqa: E402


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Copy]:
    """A copy without any measurement."""
    copy = Copy.make(tmp_path / "bench")
    yield copy
    copy.close()


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy with all configured cells measured, made once per pytest worker."""
    copy = Copy.make(tmp_path_factory.mktemp("template") / "bench")
    done = copy.measure()
    assert done.code == 0, done.err
    assert set(copy.kinds().values()) == {"fresh"}
    copy.assert_nobody_lives()
    return copy


@pytest.fixture
def measured(template: Copy, tmp_path: Path) -> Iterator[Copy]:
    """A clone with the results of all configured cells."""
    copy = Copy.duplicate(template, tmp_path / "bench")
    yield copy
    copy.close()
