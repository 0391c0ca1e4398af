"""All records of one machine in one file, to be carried to another machine."""

from __future__ import annotations

import datetime
import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stepbench import planning, records
from stepbench.bench import Bench

VERSION = 1


def pack(bench: Bench, folder: Path, *, more: Mapping[str, Any] | None = None) -> Path:
    """Write every readable record of this machine into `folder`/bench_<machine>_<date>.json.gz and return its path.

    The file is gzip-compressed JSON: `version`, `machine`, `date`, `records` (the path below results/<machine>/ → the
    record as its file holds it) and what `more` adds. A record that cannot be believed is left out and named under
    `refused`.
    """
    packed: dict[str, Any] = {}
    refused: dict[str, str] = {}
    for path in planning.recorded(bench):
        name = Path(*path.parts[2:]).as_posix()
        try:
            records.read(bench.root / path)
        except records.RecordError as error:
            refused[name] = str(error)
        else:
            packed[name] = json.loads((bench.root / path).read_text(encoding="utf-8"))
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    content = {
        "version": VERSION,
        "machine": bench.machine,
        "date": date,
        "records": packed,
        "refused": refused,
        **(more or {}),
    }
    file = folder / f"bench_{bench.machine}_{date}.json.gz"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))
    return file
