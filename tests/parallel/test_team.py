"""Several nodes on one host, started by hand; Slurm's are in tests/slurm."""

from __future__ import annotations

import datetime
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.parallel import team_on_ranks
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from stepbench.parallel import team
from stepbench.parallel.addresses import PORT_VARIABLE, TOKEN_VARIABLE
from stepbench.parallel.outcome import RankError
from stepbench.parallel.team import Call, DifferentNodeError, Team, TeamError

FACTS = {"device_names": ["a CPU"], "torch": "2.13.0"}
MEASURED = "collectives/operation~all_reduce"
FOLLOW = """
import json, sys
from stepbench.parallel import team
try:
    team.follow(["256.0.0.1", "127.0.0.1"], int(sys.argv[1]), rank=int(sys.argv[2]), count=int(sys.argv[3]),
                facts=json.loads(sys.argv[4]), node=f"node-{sys.argv[2]}", token=sys.argv[5])
except team.TeamError as error:
    sys.exit(str(error))
"""
# Of an outer launcher, whose job this is not.
STRAY = {
    "RANK": "7",
    "WORLD_SIZE": "9",
    "LOCAL_RANK": "3",
    "MASTER_ADDR": "192.0.2.1",
    "MASTER_PORT": "1",
    "SLURM_PROCID": "5",
    "SLURM_NTASKS": "11",
}
Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        found = int(listener.getsockname()[1])
    monkeypatch.setenv(PORT_VARIABLE, str(found))
    monkeypatch.setenv(TOKEN_VARIABLE, MEASURED)
    return found


@pytest.fixture
def follower(port: int) -> Iterator[Start]:
    """Return a function that starts the process of a further node."""
    started: list[subprocess.Popen[str]] = []

    def start(rank: int = 1, count: int = 2, facts: str = json.dumps(FACTS)) -> Any:
        paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-c", FOLLOW, str(port), str(rank), str(count), facts, MEASURED],
            env={**os.environ, **STRAY, "PYTHONPATH": paths},
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def call(function: Callable[..., Any], **arguments: Any) -> Call:
    return Call(function, 1, arguments, "gloo", 1)


def test_all_nodes_run_the_call_and_strays_of_an_outer_launcher_do_not_matter(
    follower: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in STRAY.items():
        monkeypatch.setenv(name, value)
    other = follower()
    with Team(2, "cpu", FACTS, "alps") as nodes:
        found = nodes.call(call(team_on_ranks.add, number=3), 60.0)
    assert [(each["sum"], each["rank"], each["local_rank"], each["node"]) for each in found] == [
        (7.0, 0, 0, "0"),
        (7.0, 1, 0, "1"),
    ]
    # The interface on which the follower reached this node: of its addresses, the one that answered.
    assert {each["interface"] for each in found} == {"lo"}
    assert nodes.names == ["alps", "node-1"]
    assert other.wait(30) == 0


def test_a_rank_of_another_node_is_named(follower: Start) -> None:
    follower()
    with Team(2, "cpu", FACTS) as nodes:
        with pytest.raises(RankError, match="the last rank has had enough") as raised:
            nodes.call(call(team_on_ranks.leave_from_the_second_node), 60.0)
        assert raised.value.rank == 1
        assert nodes.silent() == []


def test_a_node_that_dies_is_named_in_time(follower: Start) -> None:
    follower()
    with Team(2, "cpu", FACTS) as nodes:
        start = time.monotonic()
        with pytest.raises(RankError):
            nodes.call(call(team_on_ranks.kill_the_second_node), 100.0)
        assert time.monotonic() - start < 60
        assert nodes.silent() == ["node-1"]


def test_another_machine_is_refused(follower: Start) -> None:
    follower(facts='{"device_names": ["a CPU"], "torch": "2.14.0"}')
    told = "node node-1 is another machine than this one: `torch` is 2.14.0 there and 2.13.0 here"
    with pytest.raises(DifferentNodeError, match=told) as raised, Team(2, "cpu", FACTS):
        pass
    assert raised.value.kind == "landed_elsewhere"


def test_a_node_that_was_started_for_another_number_is_refused(follower: Start) -> None:
    follower(count=3)
    with pytest.raises(TeamError, match="node node-1 was started for 3 nodes, not 2"), Team(2, "cpu", FACTS):
        pass


def test_nobody_comes(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "COMES_WITHIN_S", 0.3)
    with pytest.raises(TeamError, match=rf"node 1 did not come to .*127\.0\.0\.1 port {port} in 0.3 s"):
        Team(2, "cpu", FACTS).__enter__()


def test_a_port_that_is_taken(port: int) -> None:
    with socket.socket() as listener:
        listener.bind(("", port))
        listener.listen()
        with pytest.raises(TeamError, match=f"port {port} of this node cannot be used .*; name another"):
            Team(2, "cpu", FACTS).__enter__()


def test_nobody_answers(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "COMES_WITHIN_S", 0.3)
    with pytest.raises(TeamError, match=rf"nobody answers on port {port} of node 0 within 0.3 s .*Connection refused"):
        team.follow(["127.0.0.1"], port, rank=1, count=2, facts=FACTS, node="here", token=MEASURED)


def test_a_leftover_of_another_measurement_does_not_join() -> None:
    """It comes to a port that now belongs to a measurement of something else, and is not waited for there."""
    waits = datetime.timedelta(seconds=30)
    store = TCPStore("127.0.0.1", 0, is_master=True, timeout=waits, wait_for_workers=False)
    store.set(team._WHOSE, MEASURED)
    told = f"127.0.0.1 port {store.port} belongs to another measurement: {MEASURED}, and not fsdp/size~nano"
    with pytest.raises(TeamError, match=told):
        team.follow(["127.0.0.1"], store.port, rank=1, count=2, facts=FACTS, node="here", token="fsdp/size~nano")  # noqa: S106
    assert not store.check([team._key(MEASURED, "came/1")])


def test_a_store_of_something_else_is_no_node(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "COMES_WITHIN_S", 0.5)
    waits = datetime.timedelta(seconds=30)
    other = TCPStore("127.0.0.1", 0, is_master=True, timeout=waits, wait_for_workers=False)
    with pytest.raises(TeamError, match=f"127.0.0.1 port {other.port} is no node that measures {MEASURED}"):
        team.follow(["127.0.0.1"], other.port, rank=1, count=2, facts=FACTS, node="here", token=MEASURED)


def test_a_listener_that_never_answers_is_no_node(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "COMES_WITHIN_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", port))
        silent.listen()
        told = f"who listens on 127.0.0.1 port {port} does not answer as node 0 does; name another port"
        with pytest.raises(TeamError, match=told):
            team.follow(["127.0.0.1"], port, rank=1, count=2, facts=FACTS, node="here", token=MEASURED)


def test_a_node_that_cannot_be_reached(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets to it are lost, as behind a firewall; the error gives each address with its reason."""
    monkeypatch.setattr(team, "COMES_WITHIN_S", 0.3)

    def lost(address: tuple[str, int], timeout: float) -> socket.socket:
        raise (
            TimeoutError(110, "Connection timed out") if address[0] == "192.0.2.1" else OSError(113, "No route to host")
        )

    monkeypatch.setattr(socket, "create_connection", lost)
    told = r"\(192\.0\.2\.1: Connection timed out; 198\.51\.100\.1: No route to host\)"
    with pytest.raises(TeamError, match=rf"nobody answers on port {port} of node 0 within 0.3 s {told}"):
        team.follow(["192.0.2.1", "198.51.100.1"], port, rank=1, count=2, facts=FACTS, node="here", token=MEASURED)


@pytest.mark.parametrize("variables", [{}, {"SLURM_JOB_ID": "1", "PATH": "/nowhere"}, {"SLURM_JOB_NODELIST": "n1"}])
def test_without_slurm_and_without_a_rendezvous_it_is_said_what_to_do(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name in (PORT_VARIABLE, "SLURM_JOB_ID", "SLURM_JOB_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        TeamError, match="2 nodes need a Slurm job of 2 nodes, or a command on each: `stepbench measure"
    ):
        Team(2, "cpu", FACTS)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts this process into a Slurm job whose commands are scripts."""

    def enter(node: str | None, *, listed: str = "n1 n2", scontrol: int = 0, srun: int = 0) -> None:
        answers = f"""
case "$*" in
"show hostnames n[1-2]") printf '%s\\n' {listed};;
"--oneliner show job 7") echo "JobId=7 ReqNodeList=(null) ExcNodeList=(null) NodeList=n[1-2] BatchHost=n1 NumNodes=2";;
*) exit 9
esac"""
        refusal = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"
        for name, text in {"scontrol": refusal if scontrol else answers, "srun": f"exit {srun}"}.items():
            (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        monkeypatch.delenv(PORT_VARIABLE, raising=False)
        for name, value in STRAY.items() | {("SLURM_JOB_ID", "7"), ("SLURM_JOB_NODELIST", "n1")}:
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("SLURMD_NODENAME", raising=False)
        if node is not None:
            monkeypatch.setenv("SLURMD_NODENAME", node)

    return enter


def test_the_other_nodes_are_those_that_this_one_is_not(job: Callable[..., None]) -> None:
    for me, other in (("n1", "n2"), ("n2", "n1")):
        job(me)
        assert Team(2, "cpu", FACTS)._others == [other]


@pytest.mark.parametrize(
    ("entered", "told"),
    [
        ({"node": "n1", "listed": "n1"}, r"2 nodes need a Slurm job of 2 nodes, got 1 \(n\[1-2\]\)"),
        (
            {"node": "login"},
            r"this is login, which is no node of this Slurm job \(n\[1-2\]\); start it there with srun",
        ),
        ({"node": None}, rf"this is {platform.node()}, which is no node of this Slurm job"),
        (
            {"node": "n1", "scontrol": 1},
            "cannot tell the nodes of Slurm job 7: slurm_load_jobs error: Invalid job id specified",
        ),
    ],
    ids=["too few nodes", "another node", "a login node", "a job that is over"],
)
def test_a_slurm_job_that_is_not_this_ones(job: Callable[..., None], entered: dict[str, Any], told: str) -> None:
    """Variables of an outer job: of fewer nodes, around a shell elsewhere, or of one that has ended."""
    job(**entered)
    with pytest.raises(TeamError, match=told):
        Team(2, "cpu", FACTS)


def test_a_node_on_which_srun_cannot_start_anything(job: Callable[..., None]) -> None:
    job("n1", srun=3)
    told = "srun could not run on n2 and ended with status 3; the cell's log says why"
    with pytest.raises(TeamError, match=told):
        Team(2, "cpu", FACTS).__enter__()
