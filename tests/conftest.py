"""Settings of every test: one thread for each process, no time limit for an example, and the order of files."""

import os

import hypothesis
import pytest

# Before torch is imported by anything, and inherited by every process that a test starts.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

# What is found does not depend on how long it took: a disk that is slow for a moment is no example of a fault.
hypothesis.settings.register_profile("here", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("here")

# Workers take whole files, in this order of folders, so that the long ones are not what everybody waits for at the end.
LONG = ("workflow", "experiments", "kernels", "measure")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first; what is in a file stays together and in its order."""
    items.sort(key=lambda item: LONG.index(found) if (found := item.path.parent.name) in LONG else len(LONG))
