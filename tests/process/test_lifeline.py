"""Real processes. What a test starts carries the test's own mark in its environment, and is gone when the test ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tests.processes import PROMISED_S, alive, gone

from stepbench.process import lifeline

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="watches processes through /proc and pidfd")

# Prints its id, then sleeps in naps: Python handles a signal that comes just before a sleep when that sleep is over.
SLEEPER = "import os, time; print(os.getpid(), flush=True)\nwhile True: time.sleep(0.1)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPER}"


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    mark = uuid.uuid4().hex
    monkeypatch.setenv("STEPBENCH_TEST", mark)
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, **options: object) -> subprocess.Popen[str]:
        started.append(subprocess.Popen(words, stdout=subprocess.PIPE, text=True, **options))  # type: ignore[call-overload]
        return started[-1]

    yield run
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("STEPBENCH_TEST") == mark:
                found.append(process)
    # A shell whose command has ended may be about to end.
    unexpected = {process.pid for process in found} - {each.pid for each in started}
    gone(list(unexpected))
    left = [pid for pid in unexpected if alive(pid)]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    for process in started:
        process.wait()
        assert process.stdout
        process.stdout.close()
    assert left == []


def next_id(process: subprocess.Popen[str]) -> int:
    assert process.stdout
    return int(process.stdout.readline())


def script(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / f"{name}.py"
    path.write_text(text)
    return str(path)


# -- dying with the parent ---------------------------------------------------------------------------------------------

CHILD = """
import os, sys, time
from stepbench.process import lifeline
lifeline.die_with_parent(int(sys.argv[1]))
print(os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_parent(start: Callable, tmp_path: Path, sign: signal.Signals) -> None:
    child = script(tmp_path, "child", CHILD)
    parent = f"import os, subprocess, sys; subprocess.run([sys.executable, {child!r}, str(os.getpid())])"
    process = start(sys.executable, "-c", parent)
    pid = next_id(process)
    process.send_signal(sign)
    assert gone([pid])


def test_a_child_whose_parent_is_gone_already_ends_at_once(start: Callable, tmp_path: Path) -> None:
    process = start(sys.executable, script(tmp_path, "child", CHILD), "1" if os.getpid() != 1 else "2")
    assert process.wait(timeout=30) == lifeline.ORPHANED_EXIT_CODE


def test_a_child_outlives_nothing_that_it_should_not(start: Callable, tmp_path: Path) -> None:
    """As long as the parent lives, so does the child: the promise is not a time limit."""
    process = start(sys.executable, script(tmp_path, "child", CHILD), str(os.getpid()))
    pid = next_id(process)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.2)
    assert psutil.pid_exists(pid)


# -- watching ancestors ------------------------------------------------------------------------------------------------

WATCHER = f"""
import os, subprocess, sys
from stepbench.process import lifeline
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], start_new_session=True)
watched = lifeline.ancestors_up_to(int(os.environ["RUN"]))
print(os.getpid(), flush=True)
end = lifeline.wait(child, deadline_s=600, watched=watched)
lifeline.kill_group(child, grace_s=0.2)
sys.exit(lifeline.ORPHANED_EXIT_CODE if end == "orphaned" else 0)
"""


@pytest.mark.parametrize("shell", ["{watcher}", "bash -c '{watcher}; true'", "sh -c 'sh -c \"{watcher}; true\"; true'"])
def test_a_shell_in_between_does_not_hide_the_death_of_the_run(start: Callable, tmp_path: Path, shell: str) -> None:
    """The run is killed and the shell lives on, as when Snakemake is killed and the shell of its job is not."""
    command = shell.format(watcher=f"{sys.executable} {script(tmp_path, 'watcher', WATCHER)}")
    run = f"import os, subprocess; os.environ['RUN'] = str(os.getpid()); subprocess.run({command!r}, shell=True)"
    process = start(sys.executable, "-c", run, start_new_session=True)
    pids = [next_id(process), next_id(process)]
    process.kill()
    process.wait()
    assert gone(pids)


def test_whoever_stands_above_the_run_may_leave(start: Callable, tmp_path: Path) -> None:
    """A terminal or a login that started the run in the background ends, and the run goes on."""
    watcher = f"{sys.executable} {script(tmp_path, 'watcher', WATCHER)}"
    run = f"import os, subprocess; os.environ['RUN'] = str(os.getpid()); subprocess.run({watcher!r}, shell=True)"
    run = f"import os; print(os.getpid(), flush=True); {run}"
    login = start(sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {run!r}])")
    pids = [next_id(login), next_id(login), next_id(login)]
    login.kill()
    login.wait()
    assert not gone([pids[1]], within_s=0.5)
    assert all(psutil.pid_exists(pid) for pid in pids)
    os.kill(pids[0], signal.SIGKILL)
    assert gone(pids)


def test_ancestors_are_told_up_to_the_one_that_is_asked_for(start: Callable) -> None:
    code = "import os; from stepbench.process import lifeline; print(*lifeline.ancestors_up_to(int(os.environ['RUN'])))"
    shell = start("sh", "-c", f'export RUN=$$; sh -c "echo \\$\\$; {sys.executable} -c \\"{code}\\"; true"; true')
    assert shell.stdout
    inner, found = shell.stdout.readline().split(), shell.stdout.readline().split()
    assert shell.wait(timeout=30) == 0
    assert found == [*inner, str(shell.pid)]


@pytest.mark.parametrize("process", [None, 2**22 + 1])
def test_one_that_is_no_ancestor_leaves_the_parent(process: int | None) -> None:
    assert lifeline.ancestors_up_to(process) == (os.getppid(),)


# -- waiting -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["pidfd", "looking"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to wait: for the kernel's word, and where it has none by looking."""
    if request.param == "looking":
        monkeypatch.delattr(os, "pidfd_open")
    return request.param


def test_waiting_ends_with_the_child(start: Callable, way: str) -> None:
    child = start(sys.executable, "-c", "print(1)")
    assert lifeline.wait(child, deadline_s=60, watched=(os.getpid(),)) == "ended"
    assert child.returncode == 0


def test_waiting_ends_at_the_deadline(start: Callable, way: str) -> None:
    child = start(sys.executable, "-c", SLEEPER)
    begin = time.monotonic()
    assert lifeline.wait(child, deadline_s=0.3, watched=(os.getpid(),)) == "deadline"
    assert 0.3 <= time.monotonic() - begin < PROMISED_S


def test_waiting_ends_when_one_of_those_watched_dies(start: Callable, way: str) -> None:
    child, watched = start(sys.executable, "-c", SLEEPER), start(sys.executable, "-c", SLEEPER)
    next_id(watched)
    watched.kill()  # not reaped: a zombie is dead, too
    begin = time.monotonic()
    assert lifeline.wait(child, deadline_s=60, watched=(os.getpid(), watched.pid)) == "orphaned"
    assert time.monotonic() - begin < PROMISED_S


def test_waiting_ends_at_once_when_one_of_those_watched_is_gone(start: Callable, way: str) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    child = start(sys.executable, "-c", SLEEPER)
    assert lifeline.wait(child, deadline_s=60, watched=(os.getpid(), gone.pid)) == "orphaned"


def test_a_child_that_has_ended_is_not_an_orphan(start: Callable, way: str) -> None:
    """Both at once: what was measured counts."""
    child, watched = start("true"), start("true")
    child.wait()
    watched.wait()
    assert lifeline.wait(child, deadline_s=60, watched=(watched.pid,)) == "ended"


# -- ending a group ----------------------------------------------------------------------------------------------------


def test_a_group_that_ignores_sigterm_is_killed(start: Callable) -> None:
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); {STUBBORN}"
    child = start(sys.executable, "-c", code, start_new_session=True)
    pids = [next_id(child), next_id(child)]
    begin = time.monotonic()
    lifeline.kill_group(child, grace_s=0.3)
    assert gone(pids, within_s=0)
    assert time.monotonic() - begin < PROMISED_S
    assert child.returncode == -signal.SIGKILL


def test_a_group_is_asked_first(start: Callable) -> None:
    code = f"import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); {SLEEPER}"
    child = start(sys.executable, "-c", code, start_new_session=True)
    next_id(child)
    lifeline.kill_group(child, grace_s=30.0)
    assert child.returncode == 7


def test_what_a_child_left_behind_ends_too(start: Callable) -> None:
    """The child has ended well, and something that it started goes on in its group."""
    large = f"held = bytearray(400_000_000); {STUBBORN}"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {large!r}])"
    child = start(sys.executable, "-c", code, start_new_session=True)
    pid = next_id(child)
    assert lifeline.wait(child, deadline_s=60, watched=()) == "ended"
    lifeline.kill_group(child)
    assert gone([pid], within_s=0)
    assert child.returncode == 0


@pytest.mark.parametrize("leader", ["runs", "ended"])
def test_one_that_dies_slowly_is_waited_for(start: Callable, leader: str) -> None:
    """The child is gone at once; what it started has memory to give back."""
    large = f"held = bytearray(400_000_000); {SLEEPER}"
    if leader == "ended":  # while other threads of its process run, the first one is a zombie
        large = f"import ctypes, threading; threading.Thread(target=exec, args=({large!r}, {{}})).start()\n"
        large += "ctypes.CDLL(None).pthread_exit(None)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {large!r}]); {SLEEPER}"
    child = start(sys.executable, "-c", code, start_new_session=True)
    pids = [next_id(child), next_id(child)]
    lifeline.kill_group(child)
    assert gone(pids, within_s=0)


def test_one_in_a_group_of_its_own_is_waited_for(start: Callable, tmp_path: Path) -> None:
    """As a rank is, which dies with whoever started it, and may have the memory of a GPU to give back."""
    rank = script(tmp_path, "rank", CHILD.replace("print", "held = bytearray(400_000_000)\nprint"))
    code = "import os, subprocess, sys; subprocess.run([sys.executable, {}, str(os.getpid())], start_new_session=True)"
    child = start(sys.executable, "-c", code.format(repr(rank)), start_new_session=True)
    pid = next_id(child)
    lifeline.kill_group(child)
    assert gone([pid], within_s=0)


def test_one_that_does_not_die_is_told_of(
    start: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What asks for nothing dies with nobody: here it stands for a process that waits for a driver."""
    monkeypatch.setattr(lifeline, "_KILLED_WITHIN_S", 0.2)
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPER!r}], start_new_session=True)"
    child = start(sys.executable, "-c", code, start_new_session=True)
    pid = next_id(child)
    lifeline.kill_group(child)
    assert capsys.readouterr().err == (
        f"stepbench: process {pid} is still alive 0.2 s after SIGKILL and may disturb the next measurement\n"
    )
    os.kill(pid, signal.SIGKILL)


def test_a_zombie_that_nobody_reaps_is_not_waited_for(start: Callable) -> None:
    """In a container, process 1 may be one that reaps nobody."""
    child = start(sys.executable, "-c", SLEEPER, process_group=0)
    # Python would reap one that nothing refers to.
    code = f"import subprocess; kept = subprocess.Popen(['true'], process_group={child.pid})"
    idle = start(sys.executable, "-c", f"{code}\nprint(kept.pid, flush=True)\n{SLEEPER}")
    zombie = next_id(idle)
    assert gone([zombie], within_s=30)
    assert psutil.Process(zombie).status() == psutil.STATUS_ZOMBIE
    begin = time.monotonic()
    lifeline.kill_group(child)
    assert time.monotonic() - begin < PROMISED_S
    os.killpg(child.pid, 0)  # the zombie is in the group still


def test_a_group_that_is_gone_is_no_error() -> None:
    child = subprocess.Popen(["true"], start_new_session=True)
    child.wait()
    lifeline.kill_group(child)
    assert child.returncode == 0
