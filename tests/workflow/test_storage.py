"""A disk that is full, and a folder that cannot be written to."""

import shutil
import subprocess
from pathlib import Path

import pytest
from tests.workflow.bench_copy import Copy

TARGET = "results/here/plain/label~b.json"
NO_SPACE = f"{TARGET}: file too large; free some space and rerun the same command to resume"
# The kernel refuses what is longer than this, as a full disk does; a record is, and what is written before it is not.
LIMIT_BYTES = 1024


def ask_for_another(copy: Copy) -> dict[str, tuple[int, bytes]]:
    """Add a cell to the grid, have the sources read, and return what has been measured."""
    copy.set("experiments.plain.cpu", [{"label": ["a", "b"]}])
    copy.states()
    return copy.files()


def assert_nothing_lost_and_go_on(copy: Copy, kept: dict[str, tuple[int, bytes]]) -> None:
    assert copy.files() == kept
    assert copy.half_files() == []
    with copy.measuring("plain/b"):
        assert copy.snakemake(TARGET).code == 0


def test_a_full_disk_costs_one_record_and_is_said(measured: Copy) -> None:
    kept = ask_for_another(measured)
    command = f"ulimit -f {LIMIT_BYTES // 1024}; exec {measured.python_path} -m stepbench measure plain label~b"
    done = measured.run("bash", "-c", command)
    assert done.code == 1
    assert len(done.said) == 1, done.err
    assert NO_SPACE in done.said[0]
    assert "Traceback" not in done.err
    assert_nothing_lost_and_go_on(measured, kept)


def test_a_full_disk_under_snakemake(measured: Copy) -> None:
    """Only what the measuring rule's process writes is limited: Snakemake keeps a log of its own."""
    kept = ask_for_another(measured)
    limit = measured.stubs / "sitecustomize.py"  # Python imports it at its start
    limit.write_text(
        "import resource\n"
        "if b'/measure.py' in open('/proc/self/cmdline', 'rb').read():\n"
        f"    resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT_BYTES}, {LIMIT_BYTES}))\n"
    )
    done = measured.snakemake(TARGET)
    assert done.code == 1
    assert len(done.said) == 1, done.err
    assert NO_SPACE in done.said[0]
    limit.unlink()
    assert_nothing_lost_and_go_on(measured, kept)


def test_a_folder_that_cannot_be_written_to_is_said_before_any_cell_starts(measured: Copy) -> None:
    """Something else lies in its place, which stops a superuser, too."""
    folder = measured.root / "results/here/plain"
    shutil.rmtree(folder)
    folder.write_text("I was here first.")
    measured.set("experiments.toy.cpu", [{"behaviour": ["fine", "other"], "size": ["nano"]}])
    with measured.measuring():
        both = measured.measure()
        one = measured.python("-m", "stepbench", "measure", "plain", "label~a")
    for done in (both, one):
        assert done.code == 1
        assert len(done.said) == 1, done.err
        assert done.said[0].endswith(
            "results/here/plain: cannot be written to (it is not a folder); nothing was measured"
        )
        assert "Traceback" not in done.err
    measured.set("experiments.toy.cpu", [{"behaviour": ["fine"], "size": ["nano", "micro"]}])
    with measured.measuring():
        assert measured.snakemake("results/here/tables/toy/toy.csv").code == 0
    assert len((measured.root / "results/here/tables/toy/toy.csv").read_text().splitlines()) == 3


def in_a_read_only_folder(folder: Path) -> tuple[str, ...]:
    """Return the words that run a command while a folder is mounted so that nobody can write to it."""
    quoted = str(folder)
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    return ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, quoted)


def can_mount() -> bool:
    try:
        words = ("unshare", "--user", "--map-root-user", "--mount", "true")
        return subprocess.run(words, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not can_mount(), reason="needs a mount namespace of its own")
def test_a_read_only_file_system_is_said_before_any_cell_starts(measured: Copy) -> None:
    kept = ask_for_another(measured)
    table = "results/here/tables/toy/toy.csv"
    read_only = in_a_read_only_folder(measured.root / "results")
    done = measured.run(*read_only, measured.python_path, "-m", "snakemake", "--cores", "1", TARGET, table)
    assert done.code == 1
    assert done.said, done.err
    assert all(
        line.endswith("cannot be written to (the file system is read-only); nothing was measured") for line in done.said
    )
    assert_nothing_lost_and_go_on(measured, kept)
