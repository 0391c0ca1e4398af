"""Settings of every test: one thread for each process, and the order in which workers take files."""

import os

import pytest

# Before torch is imported by anything, and inherited by every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

# Workers take whole files, in this order of folders, so that the long ones are not what everybody waits for at the end.
LONG = ("workflow", "experiments", "kernels", "measure")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first; what is in a file stays together and in its order."""
    items.sort(key=lambda item: LONG.index(found) if (found := item.path.parent.name) in LONG else len(LONG))
