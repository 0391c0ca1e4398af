"""Starting ranks, and what is known of them when something goes wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.parallel import launch_on_ranks
from tests.processes import gone

from stepbench.parallel.launch import launch
from stepbench.parallel.outcome import RankError, RankTimeoutError
from stepbench.parallel.rendezvous import Nodes

pytestmark = pytest.mark.ranks

ROOT = Path(__file__).parents[2]
GENEROUS_S = 120.0
FORK = pytest.mark.parametrize("fork", [False, True], ids=["fresh", "forked"])


def wait_for(path: Path, within_s: float = GENEROUS_S) -> str:
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if path.exists() and (text := path.read_text(encoding="utf-8")):
            return text
        time.sleep(0.02)
    raise AssertionError(f"{path} did not appear")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# -- what works --------------------------------------------------------------------------------------------------------


@FORK
def test_every_rank_answers_in_order_and_nothing_of_the_caller_is_touched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fork: bool
) -> None:
    """Among leftovers of another job: its environment, and something foreign that listens on torch's usual port."""
    for name, value in {"RANK": "7", "WORLD_SIZE": "9", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    handlers = {sign: signal.getsignal(sign) for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environment = dict(os.environ)
    with socket.socket() as foreign:
        foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        foreign.bind(("127.0.0.1", 29500))
        foreign.listen()
        found = launch(
            launch_on_ranks.introduce,
            3,
            arguments={"text": "ä", "numbers": [1, 2.5]},
            backend="gloo",
            deadline_s=GENEROUS_S,
            threads=2,
            fork=fork,
        )
    assert [answer["rank"] for answer in found] == [0, 1, 2]
    assert [answer["local_rank"] for answer in found] == ["0", "1", "2"]
    for answer in found:
        assert answer["ranks"] == answer["sum"] == 3
        assert answer["threads"] == 2
        assert answer["said"] == {"text": "ä", "numbers": [1, 2.5]}
        assert answer["store"] == "127.0.0.1"
    assert {sign: signal.getsignal(sign) for sign in handlers} == handlers
    assert dict(os.environ) == environment
    assert list(tmp_path.iterdir()) == []


SCRIPT = """
import json, sys
from stepbench.parallel.launch import launch

def twice(number):
    from torch import distributed
    return [distributed.get_rank(), 2 * number, __name__]

if __name__ == "__main__":
    print(json.dumps(launch(twice, 2, arguments={"number": 21}, backend="gloo", deadline_s=120)))
"""


@pytest.mark.parametrize("as_module", [False, True], ids=["script", "module"])
def test_a_function_of_the_script_that_runs(tmp_path: Path, as_module: bool) -> None:
    (tmp_path / "a_script.py").write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable, *(["-m", "a_script"] if as_module else ["a_script.py"])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=GENEROUS_S, check=False)
    assert done.returncode == 0, done.stderr
    name = "a_script" if as_module else "__mp_main__"
    assert json.loads(done.stdout) == [[0, 42, name], [1, 42, name]]
    assert done.stderr == ""


NODE = """
import json, sys
from stepbench.parallel.launch import launch
from stepbench.parallel.outcome import RankError
from stepbench.parallel.rendezvous import Nodes
from tests.parallel import launch_on_ranks

found = []
for endpoint, function, arguments in json.loads(sys.argv[2]):
    nodes = Nodes(count=2, rank=int(sys.argv[1]), endpoint=endpoint, job="a job")
    try:
        call = getattr(launch_on_ranks, function)
        found.append(launch(call, 1, arguments=arguments, backend="gloo", deadline_s=120, nodes=nodes))
    except RankError as error:
        found.append([str(error), [outcome.rank for outcome in error.outcomes]])
print(json.dumps(found))
"""


def test_several_nodes() -> None:
    """Two launchers that meet at an endpoint; each gets the answers of all ranks, and both name a rank that fails."""
    work = [["introduce", {}], ["misbehave", {"how": "kill"}]]
    launches = json.dumps([[f"127.0.0.1:{free_port()}", *each] for each in work])
    pair = [
        subprocess.Popen([sys.executable, "-c", NODE, str(rank), launches], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for rank in (1, 0)
    ]
    for each in pair:
        answers, failure = json.loads(each.communicate(timeout=GENEROUS_S)[0])
        assert [answer["rank"] for answer in answers] == [0, 1]
        assert [answer["local_rank"] for answer in answers] == ["0", "0"]
        assert failure == ["rank 1 was killed by SIGKILL", [0, 1]]


# -- what goes wrong in a rank -----------------------------------------------------------------------------------------

REASONS = {
    "raise": "rank 1 raised ValueError: the second rank has had enough",
    "kill": "rank 1 was killed by SIGKILL",
    "segfault": "rank 1 was killed by SIGSEGV",
    "leave": "rank 1 exited with status 0 and no result",
    "exit": "rank 1 exited with status 0 and no result",
    "interrupt": "rank 1 was killed by SIGINT",
    "out of memory": "rank 1 raised OutOfMemoryError: CUDA out of memory. Tried to allocate 1024.00 GiB",
}


HANG_DEADLINE_S = {False: 30.0, True: 5.0}  # by whether the ranks are forked


@pytest.fixture(scope="module", params=[False, True], ids=["fresh", "forked"])
def fork(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def ended(fork: bool) -> dict[str, tuple[RankError, float]]:
    """How the launcher ended with each fault and after how many seconds; the hang's waiting is used for the others."""

    def fail(how: str) -> tuple[RankError, float]:
        started = time.monotonic()
        deadline_s = HANG_DEADLINE_S[fork] if how == "hang" else GENEROUS_S
        arguments = {"how": how}
        with pytest.raises(RankError) as caught:
            launch(launch_on_ranks.misbehave, 2, arguments=arguments, backend="gloo", deadline_s=deadline_s, fork=fork)
        return caught.value, time.monotonic() - started

    cases = ["hang", *REASONS]
    with ThreadPoolExecutor(1 if fork else 3) as pool:  # a fork amid other threads may copy a lock that one holds
        return dict(zip(cases, pool.map(fail, cases), strict=True))


@pytest.fixture(scope="module")
def failures(ended: dict[str, tuple[RankError, float]]) -> dict[str, RankError]:
    return {how: error for how, (error, _) in ended.items()}


@pytest.mark.parametrize("how", REASONS)
def test_the_rank_that_failed_is_blamed_and_not_its_peer(failures: dict[str, RankError], how: str) -> None:
    error = failures[how]
    assert not isinstance(error, RankTimeoutError)
    assert str(error) == REASONS[how]
    assert (error.rank, error.reason) == (1, REASONS[how].removeprefix("rank 1 "))
    assert [outcome.rank for outcome in error.outcomes] == [0, 1]
    # Rank 0 waited in an all-reduce, and died of the lost connection.
    assert error.outcomes[0].status == "error"
    assert error.outcomes[0].exception is not None


def test_a_failure_tells_where_and_what(failures: dict[str, RankError]) -> None:
    assert failures["raise"].exception == "ValueError"
    assert "in fault\n" in (failures["raise"].traceback or "")
    assert failures["out of memory"].exception == "torch.OutOfMemoryError"
    assert failures["kill"].exception is None
    assert [failures[how].outcomes[1].exit_code for how in ("raise", "kill", "leave")] == [1, -9, 0]
    # faulthandler's stack.
    assert "in fault" in failures["segfault"].outcomes[1].output


def test_a_result_that_json_cannot_hold_is_an_error_of_that_rank() -> None:
    with pytest.raises(RankError, match=r"rank 1 raised TypeError: `function` must return what JSON can hold.*Tensor"):
        launch(launch_on_ranks.return_a_tensor, 2, backend="gloo", deadline_s=GENEROUS_S)


@FORK
def test_a_killed_rank_is_noticed_although_the_other_is_deaf(fork: bool) -> None:
    """The other neither communicates nor listens to SIGTERM: torch's launcher would give it 30 s."""
    started = time.monotonic()
    with pytest.raises(RankError, match=r"^rank 1 was killed by SIGKILL$") as caught:
        launch(launch_on_ranks.deaf, 2, arguments={"how": "kill"}, backend="gloo", deadline_s=GENEROUS_S, fork=fork)
    died_s = caught.value.outcomes[1].ended_s
    assert time.time() - died_s < 5
    assert caught.value.outcomes[0].status == "stopped"
    assert time.monotonic() - started < GENEROUS_S


def test_the_deadline_holds_for_a_rank_that_is_deaf(ended: dict[str, tuple[RankError, float]], fork: bool) -> None:
    error, took_s = ended["hang"]
    assert isinstance(error, RankTimeoutError)
    assert str(error).startswith(f"rank 1 had no result within {HANG_DEADLINE_S[fork]:g} s, last seen in hang_for_ever")
    assert str(error).endswith("; still running as well: 0")
    assert HANG_DEADLINE_S[fork] <= took_s < HANG_DEADLINE_S[fork] + 2
    assert "in all_reduce" in (error.outcomes[0].traceback or "")


@FORK
def test_what_a_rank_started_ends_with_it(tmp_path: Path, fork: bool) -> None:
    launch(
        launch_on_ranks.start_a_process,
        2,
        arguments={"folder": str(tmp_path)},
        backend="gloo",
        deadline_s=GENEROUS_S,
        fork=fork,
    )
    assert gone([int((tmp_path / f"child-{rank}").read_text()) for rank in range(2)])


# -- what goes wrong around the ranks ----------------------------------------------------------------------------------


@FORK
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=lambda sign: sign.name)
def test_ranks_end_with_their_launcher(tmp_path: Path, sign: signal.Signals, fork: bool) -> None:
    code = (
        # A shell starts what it runs in the background with SIGINT ignored, and that is inherited.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from stepbench.parallel.launch import launch\n"
        "from tests.parallel import launch_on_ranks\n"
        f"launch(launch_on_ranks.misbehave, 2, arguments={{'how': 'hang', 'folder': {str(tmp_path)!r}}},"
        f" backend='gloo', deadline_s={GENEROUS_S}, fork={fork})\n"
    )
    launcher = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
    ranks = [int(wait_for(tmp_path / str(rank))) for rank in range(2)]
    launcher.send_signal(sign)
    assert gone(ranks, within_s=GENEROUS_S)
    assert launcher.wait(timeout=GENEROUS_S) != 0


def test_a_silent_listener_at_the_endpoint_costs_no_more_than_the_deadline() -> None:
    """It takes the connection and never answers; torch's own time-outs do not cover that."""
    deadline_s = 3.0
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        nodes = Nodes(count=2, rank=1, endpoint=f"127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        with pytest.raises(RankTimeoutError, match="did not meet within 3 s"):
            launch(launch_on_ranks.introduce, 1, backend="gloo", deadline_s=deadline_s, nodes=nodes)
        assert time.monotonic() - started < deadline_s + 2


def test_a_node_that_never_comes_costs_no_more_than_the_deadline() -> None:
    deadline_s = 3.0
    started = time.monotonic()
    nodes = Nodes(count=2, rank=0, endpoint=f"127.0.0.1:{free_port()}")
    with pytest.raises(RankTimeoutError, match="did not meet within 3 s"):
        launch(launch_on_ranks.introduce, 1, backend="gloo", deadline_s=deadline_s, nodes=nodes)
    assert time.monotonic() - started < deadline_s + 2


def test_an_endpoint_that_is_taken_is_said_at_once() -> None:
    with socket.socket() as foreign:
        foreign.bind(("127.0.0.1", 0))
        foreign.listen()
        nodes = Nodes(count=2, rank=0, endpoint=f"127.0.0.1:{foreign.getsockname()[1]}")
        with pytest.raises(RankError, match=r"did not meet: .*(in use|EADDRINUSE)"):
            launch(launch_on_ranks.introduce, 1, backend="gloo", deadline_s=GENEROUS_S, nodes=nodes)


def test_a_launch_from_another_thread() -> None:
    found: list[int] = []

    def run() -> None:
        answers = launch(launch_on_ranks.introduce, 1, backend="gloo", deadline_s=GENEROUS_S)
        found.extend(answer["rank"] for answer in answers)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(GENEROUS_S)
    assert found == [0]


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ranks": 0}, "`ranks` must be at least 1, got 0"),
        ({"threads": 0}, "`threads` must be at least 1, got 0"),
        ({"deadline_s": 0}, "`deadline_s` must be positive and finite, got 0"),
        ({"deadline_s": float("nan")}, "`deadline_s` must be positive and finite, got nan"),
        ({"deadline_s": float("inf")}, "`deadline_s` must be positive and finite, got inf"),
        ({"backend": "mpi"}, "`backend` must be one of gloo, nccl, got 'mpi'"),
        ({"backend": "nccl", "ranks": 99}, "`ranks` must be at most [0-9]+, one per CUDA device, got 99"),
        ({"backend": "nccl", "fork": True}, "`fork` needs the backend gloo, got nccl"),
        ({"function": lambda: None}, "`function` must stand at the top of a module"),
        ({"arguments": {"x": object()}}, "`arguments` must be what JSON can hold"),
    ],
)
def test_what_cannot_be_launched_is_refused_before_anything_starts(change: dict[str, object], sentence: str) -> None:
    call = {"function": launch_on_ranks.introduce, "ranks": 1, "backend": "gloo", "deadline_s": 1.0, **change}
    with pytest.raises(ValueError, match=sentence):
        launch(**call)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"count": 1}, "`count` must be at least 2"),
        ({"rank": 2}, "`rank` must be from 0 to 1, got 2"),
        ({"endpoint": "here"}, "`endpoint` must be host:port, got 'here'"),
        ({"endpoint": ":29400"}, "`endpoint` must be host:port"),
        ({"endpoint": "host:0"}, "`endpoint` must be host:port"),
    ],
)
def test_nodes_that_make_no_sense_are_refused(change: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Nodes(**{"count": 2, "rank": 0, "endpoint": "[::1]:29400", **change})
