"""One side of a trial: a checkout, a Python and settings, which measure cells in processes of their own.

A side has a folder of its own with its config.yaml and its results, so that nothing of it meets the user's records. It
measures through the command line, the one interface that older checkouts have too.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stepbench.pipeline import config, records
from stepbench.pipeline.records import Record

PACKAGE_FOLDER = Path(__file__).parents[2]  # of the stepbench that runs now
TOLD_LINES = 3


class SideError(RuntimeError):
    """A side could not measure a cell; the message names the side and the reason."""


@dataclass(frozen=True)
class Side:
    """One side.

    Attributes:
        name: `a` or `b`.
        python: the interpreter that measures.
        source: the folder that contains its package `stepbench`.
        root: its folder, with config.yaml.
        ref: what the user calls the commit; None for the working tree.
        commit: the commit; None where it is unknown.
        settings: what its settings change, as the user gave it.
    """

    name: str
    python: str
    source: Path
    root: Path
    ref: str | None = None
    commit: str | None = None
    settings: tuple[str, ...] = ()

    def measure(self, experiment: str, cell: str) -> Record:
        """Measure a cell in a new process and return its record.

        Args:
            experiment: its name.
            cell: `axis=value,…`, as for `stepbench measure`.

        Raises:
            SideError: there is no record, or it has no numbers.
        """
        # A record that stands there would be compared with the new one, and the better of the two be kept.
        for path in self._records(experiment):
            path.unlink()
        command = [self.python, "-m", "stepbench", "--root", str(self.root), "measure", experiment, cell]
        paths = [str(self.source), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            command,
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        found = self._records(experiment)
        if len(found) != 1:
            lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise SideError(f"side {self.name}: exit status {done.returncode}: {' / '.join(lines[-TOLD_LINES:])}")
        try:
            record = records.read(found[0])
        except records.RecordError as error:
            raise SideError(f"side {self.name}: {error}") from None
        if not record.ok:
            raise SideError(f"side {self.name}: {record.status}: {record.reason}")
        return record

    def _records(self, experiment: str) -> list[Path]:
        """Return the records of an experiment; the names of machine and cell are up to the side's own code."""
        return sorted(self.root.glob(f"results/*/{experiment}/*~*.json"))


@contextlib.contextmanager
def checkout(repository: Path, ref: str) -> Iterator[tuple[Path, str]]:
    """Yield a work tree of a commit, and the commit; it is removed in the end.

    Args:
        repository: a folder of the repository.
        ref: a commit, a branch or a tag.

    Raises:
        ValueError: it is no commit of this repository, or has no stepbench in it.
    """
    found = _git(repository, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    if found is None:
        raise ValueError(f"a side must be a commit of the repository in {repository.resolve()}, got {ref!r}")
    folder = Path(tempfile.mkdtemp(prefix="stepbench-ab-"))
    tree = folder / "checkout"
    try:
        if _git(repository, "worktree", "add", "--detach", "--quiet", str(tree), found) is None:
            raise ValueError(f"git cannot check out {ref!r} into {tree}")
        if not (tree / "src" / "stepbench").is_dir():
            raise ValueError(f"a side must be a commit with src/stepbench, got {ref!r}")
        yield tree, found
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        _git(repository, "worktree", "prune")


@contextlib.contextmanager
def side(
    name: str,
    *,
    home: Path,
    ref: str | None = None,
    python: str,
    settings: Mapping[str, Any],
    told: tuple[str, ...] = (),
) -> Iterator[Side]:
    """Yield a side, whose folder and work tree are removed in the end.

    Args:
        name: `a` or `b`.
        home: the folder with config.yaml, in the repository.
        ref: a commit, a branch or a tag; None for the files as they are.
        python: the interpreter.
        settings: merged over config.yaml.
        told: these settings as the user gave them.

    Raises:
        ValueError: the commit or the interpreter cannot be used.
    """
    if shutil.which(python) is None:
        raise ValueError(f"`--{name}-python` must be an interpreter that can be executed, got {python!r}")
    with contextlib.ExitStack() as stack:
        tree, commit = (home, None) if ref is None else stack.enter_context(checkout(home, ref))
        source = PACKAGE_FOLDER if ref is None else tree / "src"
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"stepbench-{name}-")))
        merged = config.merge(config.read(tree / "config.yaml"), settings)
        (root / "config.yaml").write_text(json.dumps(_rooted(merged, home)), encoding="utf-8")  # JSON is YAML, quoted
        shutil.copy(tree / config.SCHEMA, root / config.SCHEMA)
        yield Side(name, python, source, root, ref, commit, told)


def _rooted(settings: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """Return settings whose paths hold in another folder; shards, which may be large, are shared with `home`."""
    found = dict(settings)
    data = dict(found.get("data", {}))
    if Path(str(data.get("source", ""))).suffix:  # a file
        data["source"] = str((home / data["source"]).resolve())
    if "shards_dir" in data:
        data["shards_dir"] = str((home / data["shards_dir"]).resolve())
    return found | ({"data": data} if data else {})


def _git(folder: Path, *words: str) -> str | None:
    """Return what git prints, or None where it fails."""
    command = ["git", "-c", "safe.directory=*", "-C", str(folder), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
