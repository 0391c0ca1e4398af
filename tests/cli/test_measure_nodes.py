"""`stepbench measure` of a cell on several nodes that are started by hand."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tests.workflow.bench_copy import Copy

from stepbench.cli import main as command_line

CELL = "operation=all_reduce,backend=gloo,ranks=2,nodes=2,payload_bytes=4096"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--rendezvous", "here"], "`--rendezvous` must be HOST:PORT of the first node, got 'here'"),
        (["--rendezvous", "here:0"], "`--rendezvous` must be HOST:PORT"),
        (["--node-rank", "1"], "`--rendezvous` must be HOST:PORT of the first node, got None"),
        (["--rendezvous", "here:29500", "--node-rank", "2"], "`--node-rank` must be from 0 to 1, got 2"),
    ],
)
def test_a_wrong_rendezvous_is_refused(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["measure", "collectives", CELL, *words]) == 2
    assert told in capsys.readouterr().err


def test_one_node_needs_no_rendezvous(capsys: pytest.CaptureFixture[str]) -> None:
    cell = CELL.replace("nodes=2", "nodes=1")
    assert command_line.main(["measure", "collectives", cell, "--rendezvous", "here:29500"]) == 2
    assert "`--rendezvous` is for one cell on several nodes, such as nodes=2" in capsys.readouterr().err


@pytest.mark.slow
def test_the_same_command_on_each_node_measures_once(tmp_path: Path) -> None:
    copy = Copy.make(tmp_path / "bench", toys=False)
    copy.configure(copy.settings | {"machine": "here", "device": "cpu", "scale": "cpu"})
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    words = ["-m", "stepbench", "measure", "collectives", CELL, "--rendezvous", f"127.0.0.1:{port}", "--node-rank"]
    # Two hosts would not share a folder's lock; the follower writes nothing and takes none.
    other = subprocess.Popen([sys.executable, *words, "1"], cwd=copy.root, env=copy.environment)
    done = copy.python(*words, "0")
    assert done.code == 0, done.out + done.err
    assert other.wait(60) == 0
    (path,) = (copy.root / "results" / "here" / "collectives").glob("*.json")
    assert "nodes~2" in path.name
