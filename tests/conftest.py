"""Settings of every test: one thread for each process, so that two workers share two cores."""

import os

# Before torch is imported by anything, and inherited by every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import pytest

# Their modules share launches of ranks or measured cells, which would be made once more by a second worker.
SHARING = ("tests/parallel/", "tests/experiments/")


@pytest.hookimpl(tryfirst=True)  # before xdist looks for the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a module that shares something costly on one worker."""
    for item in items:
        module = item.nodeid.partition("::")[0]
        if module.startswith(SHARING):
            item.add_marker(pytest.mark.xdist_group(module))
