"""Replace a record in processes that are killed, each at another line: `<record> <new value>`; prints how many.

Each child counts the lines that it executes of the history and of what writes files, and kills itself with
SIGKILL before the k-th. A child that reaches the end ends this.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from stepbench.pipeline import history, records
from stepbench.process import storage

WATCHED = {module.__file__ for module in (history, storage)}
MOST_LINES = 5000


def main(path: Path, seconds: float) -> None:
    old = path.read_bytes()
    before = records.read(path)
    after = dataclasses.replace(before, samples={"step_s": [seconds]}, started="2026-02-02T00:00:00.000+00:00")
    kept = history.folder(path) / f"{history.name_of(before)}.json"
    seen = []
    for line in range(1, MOST_LINES):
        if (child := os.fork()) == 0:
            replace_and_die(path, after, line)
        _, status = os.waitpid(child, 0)
        # Whatever the moment: what stands is whole, and the old record is in its place or in the history.
        standing = records.read(path)
        assert standing in (before, after), line
        in_history = kept.exists()
        if in_history:
            assert kept.read_bytes() == old, line
        assert standing == before or in_history, line
        seen.append([standing == after, in_history])
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, line
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        path.write_bytes(old)
        kept.unlink(missing_ok=True)
    print(json.dumps({"children": len(seen), "states": sorted({tuple(each) for each in seen})}))


def replace_and_die(path: Path, record: records.Record, line: int) -> None:
    """Replace the record and exit with 0, or be killed before the given line."""
    left = line

    def count(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
        return count

    sys.settrace(count)
    history.replace(path, record)
    sys.settrace(None)
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
