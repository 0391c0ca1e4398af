import contextlib
import errno
import fcntl
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stepbench.process import lock
from stepbench.process.lock import BusyError
from stepbench.process.storage import StorageError

HOLDER = """
import sys
from pathlib import Path
from stepbench.process import lock
descriptor = lock.hold(Path(sys.argv[1]), "it", wait="wait" in sys.argv)
print("held", flush=True)
sys.stdin.read()
"""


def start(path: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", HOLDER, str(path), *words]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def taken(path: Path, said: str) -> Iterator[None]:
    """Hold the lock at `path`, in which something stands that its holder has not written."""
    path.write_text(said)
    with path.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def test_a_lock_is_held_by_one_process_whose_number_it_tells(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "run.lock"
    assert lock.holder(path) is None
    with start(path) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        sentence = rf"another run \(process {holder.pid}, since .*\) is using this folder; wait for it or stop it"
        with pytest.raises(BusyError, match=sentence):
            lock.hold(path, "this folder")
        assert lock.holder(path) == holder.pid
        holder.kill()
        holder.wait()
    descriptor = lock.hold(path, "this folder")  # the dead one's lock is no lock
    assert lock.holder(path) == os.getpid()
    os.close(descriptor)


def test_one_that_waits_gets_the_lock_when_its_holder_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "device.lock"
    descriptor = lock.hold(path, "the device")
    with start(path, "wait") as waiting:
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=0.3)
        os.close(descriptor)
        assert waiting.stdout
        assert waiting.stdout.readline() == "held\n"
        assert lock.holder(path) == waiting.pid


@pytest.mark.parametrize("before", ["", '{"process": 1, "since": "2020-01-01"}'])
def test_one_that_has_just_taken_the_lock_is_named_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    """Between the taking and the writing there is nothing in the file, or the name of whoever held it last."""
    monkeypatch.setattr(lock, "_WRITTEN_WITHIN_S", 60.0)
    path = tmp_path / "run.lock"
    with subprocess.Popen(["true"]) as last:
        pass
    with taken(path, before.replace("1,", f"{last.pid},")):
        writing = threading.Timer(0.2, path.write_text, [json.dumps({"process": os.getpid(), "since": "now"})])
        writing.start()
        with pytest.raises(BusyError, match=rf"\(process {os.getpid()}, since now\) is using"):
            lock.hold(path, "this folder")
        writing.join()


@pytest.mark.parametrize("said", ["", '{"process": 99999999999, "since": "now"}'])
def test_a_holder_that_does_not_say_who_it_is_holds_it_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    monkeypatch.setattr(lock, "_WRITTEN_WITHIN_S", 0.05)
    path = tmp_path / "run.lock"
    with taken(path, said), pytest.raises(BusyError, match=r"^another run is using this folder;"):
        lock.hold(path, "this folder")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "garbage",
        "7",
        "\udcff",
        '{"process": "7", "since": "now"}',
        '{"process": 7}',
        '{"process": 7, "since": "now"}' + "x" * 10_000,
        "[" * 10_000,
        '{"process": 7, "since": "now"}',
    ],
)
def test_what_stands_in_the_file_decides_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "run.lock"
    path.write_bytes(content.encode(errors="surrogateescape"))
    assert lock.holder(path) == (7 if content.endswith('"now"}') and ": 7" in content else None)
    descriptor = lock.hold(path, "this folder")
    found = json.loads(path.read_text())
    assert found["process"] == os.getpid()
    assert re.fullmatch(r"[-0-9: ]+", found["since"])
    os.close(descriptor)


def test_a_lock_is_not_passed_on_to_children(tmp_path: Path) -> None:
    path = tmp_path / "run.lock"
    descriptor = lock.hold(path, "this folder")
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as child:
        os.close(descriptor)
        os.close(lock.hold(path, "this folder"))
        assert child.poll() is None
        assert child.stdin
        child.stdin.close()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match=rf"^{re.escape(str(tmp_path))}: its file system has no locks \(.+\)"):
        lock.hold(tmp_path / "lock", "it")


def test_another_error_of_a_lock_is_no_sentence_about_file_systems(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="Input/output error"):
        lock.hold(tmp_path / "lock", "it")
