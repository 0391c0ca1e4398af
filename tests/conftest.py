"""Settings for all tests: one thread per process, no time limit per hypothesis example, and the order of files."""

import os

import hypothesis
import pytest

# Set before anything imports torch; every process that a test starts inherits it.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

# No deadline: a disk that is slow for a moment must not fail a test.
hypothesis.settings.register_profile("here", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("here")

# Workers take whole files in this order of folders, so that no long file starts last.
LONG = ("workflow", "experiments", "kernels", "measure")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the folders with long tests first; the tests of a file stay together and in order."""
    items.sort(key=lambda item: LONG.index(found) if (found := item.path.parent.name) in LONG else len(LONG))
