"""Take out one safeguard at a time, in a copy of the repository, and see whether a test turns red: `make mutate`.

A test that passes without what it protects proves nothing. First the chosen tests must pass as they are; then each
mutation must turn at least one of them red. A text that is no longer found ends this with an error, so that the table
below follows the code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMIT_S = 300
FAILED = 1  # pytest's exit code where tests ran and some of them failed


@dataclass(frozen=True)
class Mutation:
    """One safeguard less.

    Attributes:
        name: what is taken out.
        file: where it stands.
        old: the text, which must stand there once.
        new: what stands there instead.
        tests: which tests must notice.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "the wait for all that a killed cell has started",
        "src/stepbench/process/lifeline.py",
        "    child.wait()\n    end =",
        "    child.wait()\n    return\n    end =",
        ("tests/process/test_lifeline.py",),
    ),
    Mutation(
        "the synchronisation before the start",
        "src/stepbench/measure/timing.py",
        "        clock.synchronize()\n        start = clock.now()\n",
        "        start = clock.now()\n",
        ("tests/measure/test_timing.py",),
    ),
    Mutation(
        "the synchronisation before the stop",
        "src/stepbench/measure/timing.py",
        "        work()\n        clock.synchronize()\n        samples",
        "        work()\n        samples",
        ("tests/measure/test_timing.py",),
    ),
    Mutation(
        "the wait for the device",
        "src/stepbench/measure/clock.py",
        "        self._synchronize()\n",
        "        pass\n",
        ("tests/measure/test_clock.py",),
    ),
    Mutation(
        "the hold of a stream",
        "src/stepbench/measure/device_timing.py",
        "            stream.hold(hold_s)\n",
        "",
        ("tests/measure/test_device_timing.py",),
    ),
    Mutation(
        "the wait for the events of a stream",
        "src/stepbench/measure/device_timing.py",
        "            stream.synchronize()\n            if held",
        "            if held",
        ("tests/measure/test_device_timing.py",),
    ),
    Mutation(
        "the reset of the peak",
        "src/stepbench/measure/memory.py",
        "        torch.accelerator.reset_peak_memory_stats()",
        "        pass",
        ("tests/measure/test_memory.py",),
    ),
    Mutation(
        "the collection between stages",
        "src/stepbench/measure/memory.py",
        "    gc.collect()\n",
        "",
        ("tests/measure/test_memory.py",),
    ),
    Mutation(
        "what is called before each repeat, such as the flush of the cache",
        "src/stepbench/measure/device_timing.py",
        "            before()\n",
        "",
        ("tests/measure/test_device_timing.py",),
    ),
    Mutation(
        "the match of a GPU by its UUID",
        "src/stepbench/measure/nvml.py",
        "nvml.nvmlDeviceGetHandleByUUID, kind + uuid)",
        "nvml.nvmlDeviceGetHandleByIndex, 0)",
        ("tests/fake_gpu/test_nvml.py", "-k", "own_power"),
    ),
    Mutation(
        "the atomic rename (the file is copied into place)",
        "src/stepbench/process/storage.py",
        "        os.replace(temporary, path)",
        "        __import__('shutil').copyfile(temporary, path); os.unlink(temporary)",
        ("tests/pipeline/test_records.py",),
    ),
    Mutation(
        "the copy into the history before a record is replaced",
        "src/stepbench/pipeline/history.py",
        "    keep(path)\n    storage.write_atomically(path, text)\n",
        "    storage.write_atomically(path, text)\n    keep(path)\n",
        ("tests/pipeline/test_history.py",),
    ),
    Mutation(
        "the lock",
        "src/stepbench/process/lock.py",
        "fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "pass",
        ("tests/process/test_lock.py",),
    ),
    Mutation(
        "the death signal",
        "src/stepbench/process/lifeline.py",
        "ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)",
        "pass",
        ("tests/process/test_lifeline.py", "-k", "dies_with_its_parent"),
    ),
    Mutation(
        "the fingerprint check of a record",
        "src/stepbench/pipeline/state.py",
        "if differences := fingerprint.difference(record.fingerprint, self.fingerprint(cell)):",
        "if differences := []:",
        ("tests/pipeline/test_state.py",),
    ),
    Mutation(
        "the fingerprint check after a measurement",
        "src/stepbench/process/run.py",
        "changes = [str(each) for each in fingerprint.difference(before, states.fingerprint(cell))]",
        "changes: list[str] = []",
        ("tests/process/test_run.py",),
    ),
)


def main() -> int:
    """Run every mutation and return 0 if each was noticed."""
    with tempfile.TemporaryDirectory(prefix="stepbench-mutate-") as folder:
        copy = Path(folder, "copy")
        _copy_to(copy)
        for tests in dict.fromkeys(mutation.tests for mutation in MUTATIONS):
            done = _pytest(copy, tests)
            if done.returncode != 0:
                print(f"{' '.join(tests)} must pass before anything is taken out:\n{done.stdout}")
                return 1
        survived = [mutation.name for mutation in MUTATIONS if not _is_noticed(copy, mutation)]
    print(f"{len(MUTATIONS) - len(survived)} of {len(MUTATIONS)} mutations turn a test red.")
    return 1 if survived else 0


def _copy_to(copy: Path) -> None:
    """Copy what git tracks, as it is in the working tree, and what it does not know yet but would take."""
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            target = copy / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)


def _is_noticed(copy: Path, mutation: Mutation) -> bool:
    path = copy / mutation.file
    text = path.read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise SystemExit(f"{mutation.file} must hold the text to mutate once, got {text.count(mutation.old)} times")
    path.write_text(text.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        done = _pytest(copy, mutation.tests)
    finally:
        path.write_text(text, encoding="utf-8")
    red = re.findall(r"^FAILED \S+?::(\S+)", done.stdout, re.MULTILINE)
    noticed = done.returncode == FAILED and bool(red)
    print(f"without {mutation.name}: {f'{len(red)} red, such as {red[0]}' if noticed else 'nothing turned red'}")
    if not noticed:
        print(done.stdout)
    return noticed


def _pytest(copy: Path, tests: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run tests in the copy, against the copied package and not the installed one."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
