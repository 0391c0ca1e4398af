"""Several nodes on one host, started by hand; Slurm's are in tests/slurm."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.parallel import team_on_ranks

from stepbench.parallel import team
from stepbench.parallel.addresses import PORT_VARIABLE
from stepbench.parallel.outcome import RankError
from stepbench.parallel.team import Call, DifferentNodeError, Team, TeamError

FACTS = {"device_names": ["a CPU"], "torch": "2.13.0"}
FOLLOW = """
import json, sys
from stepbench.parallel import team
from stepbench.parallel.addresses import PORT_VARIABLE
team.follow(["256.0.0.1", "127.0.0.1"], int(sys.argv[1]), rank=int(sys.argv[2]), count=int(sys.argv[3]),
            facts=json.loads(sys.argv[4]), node=f"node-{sys.argv[2]}")
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
    return found


@pytest.fixture
def follower(port: int) -> Iterator[Start]:
    """Return a function that starts the process of a further node."""
    started: list[subprocess.Popen[str]] = []

    def start(rank: int = 1, count: int = 2, facts: str = '{"device_names": ["a CPU"], "torch": "2.13.0"}') -> Any:
        paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        process = subprocess.Popen(
            [sys.executable, "-c", FOLLOW, str(port), str(rank), str(count), facts],
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
    with Team(2, "cpu", FACTS) as nodes:
        found = nodes.call(call(team_on_ranks.add, number=3), 60.0)
    assert [(each["sum"], each["rank"], each["local_rank"], each["node"]) for each in found] == [
        (7.0, 0, 0, "0"),
        (7.0, 1, 0, "1"),
    ]
    # The interface on which the follower reached this node: of its addresses, the one that answered.
    assert {each["interface"] for each in found} == {"lo"}
    assert nodes.names == ["node 0", "node-1"]
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
        team.follow(["127.0.0.1"], port, rank=1, count=2, facts=FACTS, node="here")


def test_a_leftover_of_another_measurement_does_not_join(follower: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits at a port that was given to a measurement with another token."""
    monkeypatch.setattr(team, "COMES_WITHIN_S", 4.0)
    nodes = Team(2, "cpu", FACTS)
    nodes._token = secrets.token_hex(8)
    follower()
    with pytest.raises(TeamError, match="node 1 did not come"):
        nodes.__enter__()


@pytest.mark.parametrize("variables", [{}, {"SLURM_JOB_ID": "1"}, {"SLURM_JOB_NODELIST": "n[1-2]"}])
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
