"""Child processes that never outlive their parent.

A measurement must not go on after its run was killed: it would disturb the next one and write an unwanted record.
Linux signals a process when its parent dies (`PR_SET_PDEATHSIG`) and can wait for any process (`pidfd_open`); on other
systems `wait` polls every 0.2 s.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

from stepbench import terminal

ORPHANED_EXIT_CODE = 113
_PR_SET_PDEATHSIG = 1
_LOOK_EVERY_S = 0.2
_KILLED_WITHIN_S = 10.0  # a process that waits for a disk or a driver dies when that answers


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends.

    Args:
        parent: the parent's own process id; if it is gone already, the kernel will not signal, and this process exits
            at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(ORPHANED_EXIT_CODE)


def ancestors_up_to(process: int | None) -> tuple[int, ...]:
    """Return the process ids from this process' parent up to `process`, or the parent alone if that is no ancestor.

    There may be a shell between Snakemake and its job, and it survives Snakemake, so the parent alone is not enough.
    Ancestors of `process` itself (a terminal, a login) may end.
    """
    found = [os.getppid()]
    while sys.platform == "linux" and found[-1] not in (0, 1, process):
        found.append(_parent_of(found[-1]))
    return tuple(found) if found[-1] == process else (os.getppid(),)


def wait(child: subprocess.Popen[bytes], *, deadline_s: float, watched: tuple[int, ...]) -> str:
    """Wait until `child` ends, `deadline_s` seconds have passed, or one of the processes `watched` is gone.

    Returns:
        `ended`, `deadline` or `orphaned`.
    """
    end = time.monotonic() + deadline_s
    with contextlib.ExitStack() as stack:
        poll = select.poll()
        descriptors: dict[int, int] = {}
        for process in (child.pid, *watched):
            try:
                descriptor = os.pidfd_open(process)
            except (AttributeError, ProcessLookupError, OSError):
                descriptors.clear()
                break
            stack.callback(os.close, descriptor)
            poll.register(descriptor, select.POLLIN)
            descriptors[descriptor] = process
        while True:
            if child.poll() is not None:
                return "ended"
            if not all(alive(process) for process in watched):
                return "orphaned"
            left = end - time.monotonic()
            if left <= 0:
                return "deadline"
            if descriptors:
                poll.poll(min(left, 3600) * 1000)
            else:
                time.sleep(min(left, _LOOK_EVERY_S))


def alive(process: int) -> bool:
    """Return whether there is such a process on this host that has not ended."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return not _is_zombie(_stat(process))


def kill_group(child: subprocess.Popen[bytes], *, grace_s: float = 1.0) -> None:
    """End `child` and all its descendants: SIGTERM to its process group, `grace_s`, then SIGKILL.

    A descendant with a group of its own, such as a rank, dies with `child` (`die_with_parent`). On Linux this returns
    when all of them are gone, so that the next measurement has the machine to itself; after ten seconds it gives up
    with a warning.
    """
    child.poll()
    descendants = _descendants_of(child.pid)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=grace_s)
    child.wait()
    end = time.monotonic() + _KILLED_WITHIN_S
    while left := {process for process in descendants if alive(process)}:
        if time.monotonic() >= end:
            named = ", ".join(map(str, sorted(left)))
            who = f"process {named} is" if len(left) == 1 else f"processes {named} are"
            told = f"still alive {_KILLED_WITHIN_S:g} s after SIGKILL and may disturb the next measurement"
            terminal.say(f"{who} {told}")
            return
        time.sleep(0.01)


def _descendants_of(leader: int) -> set[int]:
    """Return the processes of a group and all their descendants; on Linux only."""
    try:
        os.killpg(leader, 0)  # usually all have ended, and looking at every process takes 5 ms
        stats = {int(name): _stat(int(name)) for name in os.listdir("/proc") if name.isdecimal()}  # noqa: PTH208
    except OSError:
        return set()
    found = {leader}
    while more := {
        process
        for process, stat in stats.items()
        if process not in found and stat and (int(stat[1]) in found or int(stat[2]) == leader)
    }:
        found |= more
    return found - {leader}


def _is_zombie(stat: list[str]) -> bool:
    """Return whether a process has ended and is not reaped; while threads of it run, the first of them may look so."""
    return bool(stat) and stat[0] in "ZX" and int(stat[17]) <= 1


def _stat(process: int) -> list[str]:
    """Return the fields of /proc/<process>/stat after the command's name, which may itself hold spaces."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()
    except OSError:
        return []


def _parent_of(process: int) -> int:
    fields = _stat(process)
    return int(fields[1]) if fields else 0
