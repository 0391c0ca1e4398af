"""Cells on two real ranks that go wrong, measured by a run: what is recorded of them, and who is left."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.processes import PROMISED_S, gone
from tests.workflow import ranked_cells
from tests.workflow.bench_copy import Copy

from stepbench.workloads import ranks

TOLD_S = 5.0
GENEROUS_S = 300.0
HANG_S = 25.0  # with the margin for the record, ten times what the start of the ranks takes


@dataclass
class Ended:
    """Two runs that have ended: one of cells that go wrong quickly, and one of a cell that hangs.

    Attributes:
        quick: the first one's copy, whose cells were measured among leftovers of another job.
        hanging: the second one's.
        codes: how they ended, in that order.
        ranks: behaviour -> process and time of each of its two ranks.
    """

    quick: Copy
    hanging: Copy
    codes: tuple[int, int]
    ranks: dict[str, list[tuple[int, float]]]

    def record(self, behaviour: str) -> dict:
        """Return a cell's record."""
        copy = self.hanging if behaviour == "deaf" else self.quick
        return json.loads(path_of(copy, behaviour).read_text())


def path_of(copy: Copy, behaviour: str) -> Path:
    return copy.root / f"results/here/ranked/behaviour~{behaviour}.json"


def ranked(root: Path, *behaviours: str, time_s: float) -> Copy:
    """Return a copy with such cells, in which torch is the real one."""
    copy = Copy.make(root)
    shutil.rmtree(copy.stubs / "torch")
    ranked_cells.add_to(copy)
    ranked_cells.configure(copy, *behaviours, time_s=time_s)
    return copy


def told(*copies: Copy) -> dict[str, list[tuple[int, float]]]:
    """Return what the ranks have told of themselves."""
    found: dict[str, list[tuple[int, float]]] = {}
    for copy in copies:
        for line in Path(copy.environment["TOY_RANKS"]).read_text().splitlines():
            behaviour, process, told_at = line.split()
            found.setdefault(behaviour, []).append((int(process), float(told_at)))
    return found


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    """The quick run uses the time in which the other one hangs."""
    home = tmp_path_factory.mktemp("ranks")
    hanging = ranked(home / "hanging", "deaf", time_s=HANG_S)
    quick = ranked(home / "quick", "killed", "raises", "leaves", "fine", time_s=GENEROUS_S)
    leftovers = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "RANK": "7", "WORLD_SIZE": "9"}
    leftovers |= {"TORCHELASTIC_RUN_ID": "another", "OMP_NUM_THREADS": "7"}
    (quick.scratch / "torchelastic_rendezvous").parent.mkdir(exist_ok=True)
    (quick.scratch / "torchelastic_rendezvous").write_bytes(b"of a job that is long dead")
    with socket.socket() as foreign:  # takes connections, and never answers
        foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):  # somebody else's listener does as well
            foreign.bind(("127.0.0.1", 29500))
            foreign.listen()
        runs = [
            hanging.start("-m", "snakemake", "--cores", "1", *hanging.targets()),
            quick.start("-m", "snakemake", "--cores", "2", **leftovers),
        ]
        codes = runs[0].wait(timeout=GENEROUS_S), runs[1].wait(timeout=GENEROUS_S)
    yield Ended(quick, hanging, codes, told(quick, hanging))
    quick.close()
    hanging.close()


def test_a_rank_that_is_killed_is_named_with_its_signal_and_the_run_goes_on(ended: Ended) -> None:
    record = ended.record("killed")
    assert (record["status"], record["kind"], record["details"]) == ("error", "rank_failed", {"rank": 1})
    assert record["reason"] == "rank 1 was killed by SIGKILL"
    killed_at = max(at for _, at in ended.ranks["killed"])
    assert path_of(ended.quick, "killed").stat().st_mtime - killed_at < TOLD_S
    assert ended.record("fine")["status"] == "ok"
    assert ended.codes[0] == 0  # asked for its records alone
    assert ended.codes[1] == 1
    assert "rank 1 was killed by SIGKILL" in (ended.quick.root / "report/failures.txt").read_text()


def test_a_rank_that_raises_is_told_in_its_own_words(ended: Ended) -> None:
    record = ended.record("raises")
    assert record["status"] == "error"
    assert record["reason"] == "rank 1 raised ValueError: the second rank has had enough"
    assert "rank 1:\nTraceback" in record["traceback"]
    assert "and says so at length" in record["traceback"]


def test_a_rank_that_hangs_and_is_deaf_is_a_timeout_at_the_deadline(ended: Ended) -> None:
    record = ended.record("deaf")
    assert (record["status"], record["kind"], record["details"]) == ("timeout", "rank_deadline", {"rank": 1})
    told_s, seen = re.match(
        r"rank 1 had no result within (.+) s, last seen in (.*) \(.*; still", record["reason"]
    ).groups()
    assert float(told_s) <= HANG_S - ranks.MARGIN_S
    assert seen == "run"
    assert "rank 1:\n" in record["traceback"]
    assert record["duration_s"] < HANG_S + PROMISED_S
    assert len(ended.ranks["deaf"]) == 2
    assert gone([process for process, _ in ended.ranks["deaf"]], within_s=0)


def test_a_rank_that_leaves_without_a_result_is_named(ended: Ended) -> None:
    record = ended.record("leaves")
    assert record["status"] == "error"
    assert record["reason"] == "rank 1 exited with status 0 and no result"


def test_something_foreign_on_the_usual_port_and_leftovers_of_another_job_disturb_nobody(
    ended: Ended,
) -> None:
    record = ended.record("fine")
    assert record["status"] == "ok"
    assert record["samples"]["step_s"] == [[1.0], [1.0]]


def test_ranks_have_the_threads_of_the_protocol_whatever_the_user_has_set(ended: Ended) -> None:
    record = ended.record("fine")
    assert record["samples"]["threads"] == [[1], [1]]
    assert record["protocol"]["threads"] == record["protocol"]["effective_threads"] == 2


def test_ranks_end_with_a_run_that_is_killed(ended: Ended) -> None:
    copy = ended.quick
    ranked_cells.configure(copy, "waits", time_s=GENEROUS_S)
    run = copy.start("-m", "snakemake", "--cores", "1", *copy.targets())
    end = time.monotonic() + GENEROUS_S
    while len(told(copy).get("waits", ())) < 2:
        assert time.monotonic() < end, copy.output.read_text()
        time.sleep(0.05)
    run.kill()
    assert gone([run.pid, *(process for process, _ in told(copy)["waits"])])
    assert not path_of(copy, "waits").exists()
