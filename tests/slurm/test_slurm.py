"""Snakemake's executor for Slurm on a real cluster: what a job lands on, loses and leaves behind."""

from __future__ import annotations

import datetime
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.slurm.cluster import Cluster
from tests.workflow.bench_copy import Copy, Done

NAME = "cluster-node"
PATIENCE_S = 120.0
# The plugin waits 40 s before it asks for the first time, and this cluster has no accounting.
ASK = (
    "--seconds-between-status-checks",
    "1",
    "--slurm-init-seconds-before-status-checks",
    "1",
    "--slurm-status-command",
    "squeue",
    "--slurm-no-account",
)


class Login(Copy):
    """A copy of the workflow on a login node."""

    cluster: Cluster
    patience_s = 850.0

    @property
    def environment(self) -> dict[str, str]:
        slurm = {key: self.cluster.environment[key] for key in ("SLURM_CONF", "PATH")}
        return {**super().environment, **slurm}

    def submit(self, *words: str) -> Done:
        """Run Snakemake with the Slurm profile and return its result."""
        return self.python(*self.words(*words))

    def words(self, *words: str) -> tuple[str, ...]:
        """Return the command line of a run with the Slurm profile, after the interpreter."""
        return ("-m", "snakemake", "--workflow-profile", "profiles/slurm", *ASK, *words)

    def jobs(self, rule: str = "rule_") -> list[str]:
        """Return the ids of this cluster's running jobs of a rule."""
        listed = self.cluster.run("squeue", "--noheader", "--states=RUNNING", "--format=%A %k").splitlines()
        return [line.split()[0] for line in listed if rule in line]


@pytest.fixture
def login(tmp_path: Path, cluster: Cluster) -> Iterator[Login]:
    copy = Login.make(tmp_path / "bench")
    assert isinstance(copy, Login)
    copy.cluster = cluster
    copy.set("machine", NAME)
    described = copy.submit(f"machines/{NAME}.json")
    assert described.code == 0, described.out + described.err
    try:
        yield copy
    finally:
        cluster.run("scancel", "--user=root")
        copy.close()
        cluster.wait_until_idle()


def records(copy: Copy) -> list[dict[str, Any]]:
    found = sorted((copy.root / "results" / NAME).glob("*/*~*.json"))
    return [json.loads(path.read_text()) for path in found]


def wait_for(path: Path, what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not path.exists():
        assert time.monotonic() < end, f"{what} did not happen within {PATIENCE_S:g} s"
        time.sleep(0.1)


def test_nothing_is_submitted_before_a_node_has_described_itself(cluster: Cluster, tmp_path: Path) -> None:
    login = Login.make(tmp_path / "bench")
    assert isinstance(login, Login)
    login.cluster = cluster
    login.set("machine", NAME)
    done = login.submit()
    assert done.code == 1
    assert f"there is no machines/{NAME}.json, see docs/cluster.md" in done.out + done.err
    assert records(login) == []
    login.close()


def test_a_node_describes_itself_whole(login: Login) -> None:
    """A step that asks for one core gets one, also of an exclusive node, and would describe that."""
    described = json.loads((login.root / "machines" / f"{NAME}.json").read_text())
    assert described["cpu_cores"] == min(login.cluster.cpus, psutil.cpu_count(logical=False) or 1)


def test_ten_cells_run_on_several_nodes_at_once_and_the_report_follows(login: Login) -> None:
    login.edit("src/stepbench/models/toy_kernel.py", "FACTOR = 1", "FACTOR = 1\ntime.sleep(3)")
    cells = [{"behaviour": ["fine"], "size": ["nano", "micro"], "replicate": [0, 1, 2, 3, 4]}]
    login.set("experiments", {"toy": {"cpu": cells}})
    done = login.submit()
    assert done.code == 0, done.out + done.err
    found = records(login)
    assert len(found) == 10
    assert {record["status"] for record in found} == {"ok"}
    spans = []
    for record in found:
        start = datetime.datetime.fromisoformat(record["started"]).timestamp()
        spans.append((start, start + record["duration_s"], record["environment"]["node"]))
    assert {node for *_, node in spans} <= set(login.cluster.names)
    assert any(a[2] != b[2] and a[0] < b[1] and b[0] < a[1] for a in spans for b in spans), spans
    # Nothing runs beside a measurement on the same node.
    assert not any(a[2] == b[2] and a is not b and a[0] < b[1] and b[0] < a[1] for a in spans for b in spans), spans
    assert "toy" in (login.root / "report/writeup.md").read_text().lower()
    again = login.submit("--dry-run")
    assert "Nothing to be done" in again.out + again.err


def test_a_node_that_is_another_machine_measures_nothing(login: Login) -> None:
    file = login.root / "machines" / f"{NAME}.json"
    described = json.loads(file.read_text())
    described["software"]["torch"] = "2.99"
    file.write_text(json.dumps(described))
    done = login.submit()
    assert done.code == 1
    found = records(login)
    assert {record["kind"] for record in found} == {"landed_elsewhere"}
    assert all("`torch` is 2.13.0 instead of 2.99" in record["reason"] for record in found)
    assert {record["samples"] == {} for record in found} == {True}
    assert (login.root / "report/writeup.md").exists()


def test_a_node_that_dies_is_replaced(login: Login) -> None:
    login.set("experiments", {"toy": {"cpu": [{"behaviour": ["gated"]}]}})
    login.make_gate()
    running = login.start(*login.words())
    begun = Path(login.environment["TOY_BEGUN"])
    wait_for_begin(begun)
    (job,) = login.jobs()
    node = login.cluster.run("squeue", "--noheader", f"--job={job}", "--format=%N").strip()
    login.cluster.kill_node(node)
    try:
        wait_for_begin(begun)
        login.open_gate()
        assert running.wait(PATIENCE_S) == 0, login.output.read_text()
    finally:
        login.cluster.start_node(node)
    (record,) = records(login)
    assert record["status"] == "ok"
    assert record["environment"]["node"] != node


def test_a_job_that_is_cancelled_leaves_nothing_and_runs_next_time(login: Login) -> None:
    login.set("experiments", {"toy": {"cpu": [{"behaviour": ["gated"]}]}, "plain": {"cpu": [{"label": ["a"]}]}})
    login.make_gate()
    running = login.start(*login.words("--retries", "0"))
    wait_for_begin(Path(login.environment["TOY_BEGUN"]))
    (job,) = login.jobs("rule_measure_toy")
    login.cluster.run("scancel", job)
    assert running.wait(PATIENCE_S) == 1, login.output.read_text()
    assert [record["experiment"] for record in records(login)] == ["plain"]
    assert login.half_files() == []
    login.edit("src/stepbench/models/toy_kernel.py", '"gated", "deaf"', '"deaf",')
    done = login.submit()
    assert done.code == 0, done.out + done.err
    assert {record["status"] for record in records(login)} == {"ok"}


def test_a_wall_time_that_is_too_short_leaves_nothing_half_written(login: Login) -> None:
    login.set("experiments", {"toy": {"cpu": [{"behaviour": ["gated"]}]}})
    login.make_gate()
    running = login.start(*login.words("--retries", "0", "--set-resources", "measure_toy:runtime=1"))
    wait_for_begin(Path(login.environment["TOY_BEGUN"]))
    assert running.wait(PATIENCE_S + 60) == 1, login.output.read_text()
    assert records(login) == []
    assert login.half_files() == []


def test_ctrl_c_cancels_the_jobs(login: Login) -> None:
    login.set("experiments", {"toy": {"cpu": [{"behaviour": ["gated"]}]}})
    login.make_gate()
    running = login.start(*login.words())
    wait_for_begin(Path(login.environment["TOY_BEGUN"]))
    subprocess.run(["kill", "-INT", str(running.pid)], check=True)
    assert running.wait(30) == 130, login.output.read_text()
    end = time.monotonic() + 30
    while login.jobs():
        assert time.monotonic() < end, "the job is still running"
        time.sleep(0.2)
    assert records(login) == []


def wait_for_begin(begun: Path) -> None:
    """Wait until a gated cell writes to the pipe that says that it has begun."""
    done = subprocess.run(["timeout", str(PATIENCE_S), "cat", str(begun)], capture_output=True, check=False)
    assert done.returncode == 0, "no cell began"


def test_two_nodes_measure_together(cluster: Cluster, tmp_path: Path) -> None:
    """The real torch on Gloo: an all-reduce, and FSDP with its equivalence check, one rank on each of two nodes."""
    login = Login.make(tmp_path / "real", toys=False)
    assert isinstance(login, Login)
    login.cluster = cluster
    settings = login.settings
    settings |= {"machine": NAME, "scale": "cpu", "data": {**settings["data"], "source": "synthetic"}}
    collective = {"operation": ["all_reduce"], "backend": ["gloo"], "payload_bytes": [4096], "ranks": [2], "nodes": [2]}
    step = {"source": ["measured"], "size": ["nano"], "context": [16], "batch": [1], "variant": ["fsdp"], "nodes": [2]}
    settings["experiments"] = {"collectives": {"cpu": [collective]}, "fsdp": {"cpu": [step]}}
    login.configure(settings)
    described = login.submit(f"machines/{NAME}.json")
    assert described.code == 0, described.out + described.err
    done = login.submit()
    assert done.code == 0, done.out + done.err
    reduced, sharded = records(login)
    assert [each["status"] for each in (reduced, sharded)] == ["ok", "ok"]
    assert len(reduced["samples"]["call_s"]) == 2
    for each in (reduced, sharded):
        first, second = each["details"]["nodes"]
        assert first == each["environment"]["node"] != second
        assert {first, second} <= set(cluster.names)
    checked = sharded["scalars"]
    assert checked["equivalence_difference_ratio"] < checked["equivalence_tolerance_ratio"]
    assert "nodes 2" in (login.root / "report/writeup.md").read_text()
