"""The quota of a container's cores, with the kernel's files replaced."""

from pathlib import Path

import psutil
import pytest

from stepbench.measure import cpu_quota, environment


class Kernel:
    """What the kernel would show of control groups."""

    def __init__(self, folder: Path) -> None:
        self.mount, self.membership = folder / "cgroup", folder / "membership"
        self.mount.mkdir()

    def write(self, path: str, text: str) -> None:
        file = self.mount / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel(tmp_path)
    monkeypatch.setattr(cpu_quota, "MOUNT", made.mount)
    monkeypatch.setattr(cpu_quota, "MEMBERSHIP", made.membership)
    return made


def test_the_tightest_group_counts_in_version_2(kernel: Kernel) -> None:
    kernel.membership.write_text("0::/pod/container\n")
    kernel.write("pod/cpu.max", "150000 100000\n")
    kernel.write("pod/container/cpu.max", "max 100000\n")
    kernel.write("pod/container/cpu.stat", "usage_usec 7\nnr_throttled 3\nthrottled_usec 2500000\n")
    assert (cpu_quota.cores(), cpu_quota.stopped_s()) == (1.5, 2.5)


def test_version_1_and_a_container_that_does_not_see_its_path(kernel: Kernel) -> None:
    kernel.membership.write_text("5:cpuset:/other\n4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n")
    kernel.write("cpu,cpuacct/cpu.cfs_quota_us", "50000\n")
    kernel.write("cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    kernel.write("cpu,cpuacct/cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 1500000000\n")
    assert (cpu_quota.cores(), cpu_quota.stopped_s()) == (0.5, 1.5)


def test_a_machine_without_quotas_has_none(kernel: Kernel) -> None:
    assert (cpu_quota.cores(), cpu_quota.stopped_s()) == (None, 0.0)  # neither file is there, as on macOS
    kernel.membership.write_text("4:cpu:/\n0::/\n")
    kernel.write("cpu/cpu.cfs_quota_us", "-1\n")
    kernel.write("cpu/cpu.cfs_period_us", "100000\n")
    kernel.write("cpu.max", "max 100000\n")
    assert (cpu_quota.cores(), cpu_quota.stopped_s()) == (None, 0.0)


@pytest.mark.parametrize(("quota", "cores"), [(None, 8), (0.5, 1), (1.5, 1), (3.0, 3), (64.0, 8)])
def test_no_more_cores_are_used_than_the_quota_allows(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, cores: int
) -> None:
    monkeypatch.setattr(psutil, "cpu_count", lambda logical=True: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpu_quota, "cores", lambda: quota)
    assert environment.cores() == cores
