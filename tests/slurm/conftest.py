"""A cluster of three nodes for all tests of this folder, and copies of the workflow that a login node would hold."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.slurm.cluster import Cluster, missing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests here; `make test-slurm` runs them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Return a running cluster of three nodes.

    Each node has its own temporary folder, as nodes have, and so its own lock on measuring.
    """
    if lacking := missing():
        pytest.fail(f"install slurmctld, slurmd, slurm-client and munge: there is no {', '.join(lacking)}")
    if os.getuid() != 0:
        pytest.fail("the daemons of several nodes on one host need to be started by root")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, Cluster(Path(folder)) as running:
        yield running
