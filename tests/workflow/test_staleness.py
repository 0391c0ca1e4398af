"""Each row of the staleness table in the design, with Snakemake run for real; `measured` holds results of all cells.

The records' files before and after a run are compared: a cell has run exactly if its file is another one.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.workflow.bench_copy import CONFIG, Copy, short

KERNEL = "src/stepbench/models/toy_kernel.py"
TOYS = ("toy/fine,nano,0", "toy/fine,micro,0")
EVERYTHING = (*TOYS, "plain/a")


def stale(copy: Copy) -> dict[str, str]:
    """Return the cells that are not fresh, with why."""
    states = {short(path): state.partition("  ") for path, state in copy.states().items()}
    return {name: why for name, (kind, _, why) in states.items() if kind != "fresh"}


def test_the_copied_package_is_the_one_that_runs(measured: Copy) -> None:
    done = measured.python("-c", "import stepbench, torch; print(stepbench.__file__); print(torch.__file__)")
    package, torch = done.out.split()
    assert package == str(measured.root / "src/stepbench/__init__.py")
    assert torch == str(measured.stubs / "torch/__init__.py")


def test_a_second_run_and_a_fresh_clone_measure_nothing(measured: Copy) -> None:
    """`measured` is a clone: it holds the results, and nothing of Snakemake's or stepbench's own notes."""
    assert not (measured.root / ".snakemake").exists()
    with measured.measuring():
        assert "Nothing to be done" in measured.measure().err


# -- a kernel's code ---------------------------------------------------------------------------------------------------


def test_code_that_changes_has_the_cells_measured_that_reach_it(measured: Copy) -> None:
    """Edited now, and then taken back by a file of long ago: what was measured with 2 does not hold for 1."""
    measured.edit(KERNEL, "FACTOR = 1", "FACTOR = 2")
    assert stale(measured) == dict.fromkeys(TOYS, "source: stepbench.models.toy_kernel changed")
    marker = ".stepbench/stale/here/toy/behaviour~fine,size~nano,replicate~0.json/reasons.txt"
    with measured.measuring():
        done = measured.measure("-n")
    assert done.code == 0
    assert "rule measure_toy:" in done.out
    assert "rule measure_plain:" not in done.out
    assert f"Updated input files: {marker}" in done.out
    with measured.measuring(*TOYS):
        done = measured.measure()
    assert done.code == 0
    assert f"Updated input files: {marker}" in done.err
    reasons = (measured.root / marker).read_text().splitlines()
    assert reasons[:-1] == ["source: stepbench.models.toy_kernel changed"]
    assert measured.record(TOYS[0])["samples"] == {"step_s": [0.5, 1.0]}
    assert stale(measured) == {}
    path = measured.edit(KERNEL, "FACTOR = 2", "FACTOR = 1")
    os.utime(path, (1e9, 1e9))
    assert stale(measured) == dict.fromkeys(TOYS, "source: stepbench.models.toy_kernel changed")
    with measured.measuring(*TOYS):
        assert measured.measure().code == 0


def test_a_record_that_was_deleted_is_measured_again_although_its_tables_are_there(measured: Copy) -> None:
    """Snakemake by itself leaves a missing file alone where what was made from it is there."""
    (measured.root / "results/here/toy/behaviour~fine,size~micro,replicate~0.json").unlink()
    with measured.measuring("toy/fine,micro,0"):
        assert measured.snakemake("toy").code == 0


@pytest.mark.slow
def test_a_record_from_the_future_is_measured_again_all_the_same(measured: Copy) -> None:
    for name in EVERYTHING:
        os.utime(measured.path(name), (4e9, 4e9))
    measured.edit(KERNEL, "FACTOR = 1", "FACTOR = 2")
    with measured.measuring(*TOYS):
        assert measured.measure().code == 0
    with measured.measuring():
        assert measured.measure().code == 0


# -- what changes no number --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_words_are_rendered_again_and_nothing_is_measured(measured: Copy) -> None:
    with measured.measuring():
        assert measured.snakemake().code == 0
    writeup = measured.root / "report/writeup.md"
    assert "There are 2 toys." in writeup.read_text()
    measured.edit(KERNEL, '"""The behaviour of a toy."""', '"""The behaviour of a toy, at length."""')
    measured.edit(KERNEL, '    """Behave."""\n', "    # Behave.\n")
    measured.edit(
        "src/stepbench/experiments/toy/measure.py", "cell: Cell, setting: Setting) -> Measurement", "cell, setting)"
    )
    measured.edit("src/stepbench/experiments/toy/tables.py", "Nothing is held constant.", "All is held constant.")
    measured.edit("src/stepbench/experiments/toy/findings.py", "There are {sum", "All in all there are {sum")
    measured.edit("src/stepbench/reporting/columns.py", "RECORDS =", "LAYOUT = 2\nRECORDS =")
    measured.edit("workflow_scripts/render.py", '"""\n', '"""\n# Glue.\n')
    (measured.root / "report/captions/toy.rst").write_text("toy\n    Another caption.\n")
    (measured.root / "README.md").write_text("Another README.\n")
    template = measured.root / "report/templates/writeup.md.j2"
    template.write_text(f"{template.read_text()}\nThe end.\n")
    (measured.root / "config.yaml").write_text("# A comment.\n" + (measured.root / "config.yaml").read_text())
    assert stale(measured) == {}
    with measured.measuring():
        assert measured.snakemake().code == 0
    text = writeup.read_text()
    for words in ("All in all there are 2 toys.", "All is held constant.", "Another caption.", "The end."):
        assert words in text
    with measured.measuring():
        assert "Nothing to be done" in measured.snakemake().err
    assert writeup.read_text() == text


def git(root: Path, *words: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(root), *identity, *words], check=True, capture_output=True)


def test_file_times_and_lost_notes_change_nothing(measured: Copy) -> None:
    assert measured.measure().code == 0  # so that Snakemake has notes to lose
    root = measured.root
    git(root, "init", "-b", "main")
    git(root, "add", "src", "Snakefile", "rules", "workflow_scripts", "config.yaml")
    git(root, "commit", "-m", "first")
    git(root, "checkout", "-b", "other")
    measured.edit(KERNEL, "FACTOR = 1", "FACTOR = 2")
    measured.edit("workflow_scripts/measure.py", '"""\n', '"""\n# Other glue.\n')
    git(root, "commit", "-a", "-m", "second")
    assert list(stale(measured)) == list(TOYS)
    git(root, "checkout", "main")
    for path in [*root.rglob("*.py"), *root.rglob("*.smk"), root / "Snakefile", root / "config.yaml"]:
        path.touch()
    shutil.rmtree(root / ".snakemake")
    with measured.measuring():
        assert "Nothing to be done" in measured.measure().err


# -- settings ----------------------------------------------------------------------------------------------------------


def swap_two_values(copy: Copy) -> None:
    copy.set("sizes.nano", CONFIG["sizes"]["nano"] | {"d_model": 64, "d_ff": 32})


def edit_what_each_experiment_uses(copy: Copy) -> None:
    copy.set("protocol.seed", 1)
    copy.set("data.corpus_bytes", 30000)


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (
            swap_two_values,
            {"toy/fine,nano,0": "definition: size.d_ff was 64, is 32; definition: size.d_model was 32, is 64"},
        ),
        (
            edit_what_each_experiment_uses,
            dict.fromkeys(TOYS, "definition: protocol.seed was 0, is 1")
            | {"plain/a": "definition: data.corpus_bytes was 20000, is 30000"},
        ),
    ],
    ids=["two values swapped", "protocol and data"],
)
def test_a_setting_that_is_edited_has_the_cells_measured_that_use_it(
    measured: Copy, edit: Callable[[Copy], None], expected: dict[str, str]
) -> None:
    edit(measured)
    assert stale(measured) == expected
    with measured.measuring(*expected):
        assert measured.measure().code == 0
    assert stale(measured) == {}


def test_settings_of_which_nothing_depends_and_the_order_of_keys_change_nothing(measured: Copy) -> None:
    """The order of keys, the other scale's protocol, limits, a size that no cell names, machine by its own name."""
    measured.set("protocol.gpu.measured_steps", 50)
    measured.set("limits.time_s", 99)
    measured.set("sizes.giant", {"d_model": 8, "d_ff": 8, "layers": 1, "heads": 1})
    path = measured.root / "config.yaml"
    keys = dict(reversed(list(measured.settings.items())))
    keys["sizes"] = {name: dict(reversed(list(size.items()))) for name, size in reversed(list(keys["sizes"].items()))}
    measured.configure(keys)
    assert path.read_text().startswith("experiments:")
    assert stale(measured) == {}
    with measured.measuring():
        assert "Nothing to be done" in measured.measure().err


@pytest.mark.slow
def test_the_contents_of_a_file_of_tokens_are_data(measured: Copy) -> None:
    """Another text under the same name, with the same size and time, is another text."""
    text = measured.root / "words.txt"
    text.write_text("one two three " * 3000)
    measured.set("data", {"source": "words.txt", "corpus_bytes": 20000})
    with measured.measuring("plain/a"):
        done = measured.measure()
    assert done.code == 0, done.err
    assert stale(measured) == {}
    times = text.stat()
    text.write_text("two one three " * 3000)
    os.utime(text, ns=(times.st_atime_ns, times.st_mtime_ns))
    shutil.rmtree(measured.root / ".stepbench")  # the digest is remembered by size and time
    assert list(stale(measured)) == ["plain/a"]
    with measured.measuring("plain/a"):
        assert measured.measure().code == 0


# -- the grid ----------------------------------------------------------------------------------------------------------


def test_a_grid_that_grows_has_its_new_cells_measured_and_one_that_shrinks_none(measured: Copy) -> None:
    table = "results/here/tables/toy/toy.csv"
    with measured.measuring():
        assert measured.snakemake(table).code == 0
    assert len((measured.root / table).read_text().splitlines()) == 3
    measured.set("experiments.toy.cpu", [{"behaviour": ["fine"], "size": ["nano", "micro"], "replicate": [0, 1]}])
    with measured.measuring("toy/fine,nano,1", "toy/fine,micro,1"):
        assert measured.snakemake(table).code == 0
    assert len((measured.root / table).read_text().splitlines()) == 5
    measured.set("experiments.toy.cpu", [{"behaviour": ["fine"], "size": ["micro"]}])
    with measured.measuring():
        assert measured.snakemake(table).code == 0
    lines = (measured.root / table).read_text().splitlines()
    assert len(lines) == 2
    assert "micro" in lines[1]
    assert measured.path("toy/fine,nano,1").exists()


# -- software and machine ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "old", "new", "reason"),
    [
        ("torch/version.py", "2.13.0", "2.14.0", "software: torch was '2.13.0', is '2.14.0'"),
        ("torch/version.py", "= None", "= '13.0'", "software: cuda was None, is '13.0'"),
        ("triton-3.7.1.dist-info/METADATA", "3.7.1", "3.8.0", "software: triton was '3.7.1', is '3.8.0'"),
        ("pynvml.py", "570.1", "580.2", "software: driver was '570.1', is '580.2'"),
    ],
    ids=["torch", "CUDA", "triton", "driver"],
)
def test_other_software_makes_everything_stale(measured: Copy, file: str, old: str, new: str, reason: str) -> None:
    path = measured.stubs / file
    path.write_text(path.read_text().replace(old, new))
    assert stale(measured) == dict.fromkeys(EVERYTHING, reason)


def test_after_an_upgrade_everything_is_measured_again(measured: Copy) -> None:
    path = measured.stubs / "torch/version.py"
    path.write_text(path.read_text().replace("2.13.0", "2.14.0"))
    with measured.measuring(*EVERYTHING):
        assert measured.measure().code == 0
    assert measured.record("plain/a")["environment"]["torch"] == "2.14.0"
    with measured.measuring():
        measured.measure()


def test_another_number_of_threads_is_another_measurement(measured: Copy) -> None:
    measured.set("protocol.threads", 2)
    assert stale(measured) == dict.fromkeys(EVERYTHING, "machine: threads was 1, is 2")


def test_cores_and_the_users_own_threads_change_nothing(measured: Copy) -> None:
    """What was measured with one core stands; one more cell is measured as the others were."""
    another = "results/here/toy/behaviour~fine,size~nano,replicate~1.json"
    with measured.measuring("toy/fine,nano,1"):
        done = measured.snakemake("--cores", "2", *measured.targets(), another, OMP_NUM_THREADS="7")
    assert done.code == 0
    with_one, with_two = (measured.record(f"toy/fine,nano,{replicate}") for replicate in (0, 1))
    assert with_one["protocol"] == with_two["protocol"]
    assert with_one["protocol"]["threads"] == with_one["protocol"]["effective_threads"] == 1
    assert with_one["fingerprint"] == with_two["fingerprint"]


def test_another_machine_measures_its_own_cells_in_its_own_folder(measured: Copy) -> None:
    measured.set("machine", "there")
    assert set(measured.kinds().values()) == {"missing"}
    with measured.measuring(*(f"there:{name}" for name in EVERYTHING)):
        assert measured.measure().code == 0
    assert set(measured.kinds().values()) == {"fresh"}
    measured.set("machine", "here")
    with measured.measuring():
        assert "Nothing to be done" in measured.measure().err


def test_a_record_that_was_copied_from_another_machine_is_measured_again(measured: Copy) -> None:
    """Same name, same cells, other hardware: the fingerprint tells."""
    other = measured.root / "results/there/toy"
    other.mkdir(parents=True)
    measured.edit(
        "src/stepbench/measure/environment.py",
        "def _cpu_model() -> str:\n",
        "def _cpu_model() -> str:\n    return 'Another CPU'\n",
    )
    for reasons in stale(measured).values():
        assert reasons.startswith("machine: device_name was ")
        assert reasons.endswith(", is 'Another CPU'")


# -- records -----------------------------------------------------------------------------------------------------------


def test_a_record_that_cannot_be_believed_is_measured_again(measured: Copy) -> None:
    """One under another cell's name, one that is cut, one that was edited."""
    cut, edited = measured.path("toy/fine,nano,0"), measured.path("plain/a")
    shutil.copy(cut, measured.path("toy/fine,micro,0"))
    cut.write_bytes(cut.read_bytes()[:100])
    edited.write_text(edited.read_text().replace("1.0", "0.5"))
    found = stale(measured)
    assert list(found) == list(EVERYTHING)
    assert "`cell` must be the one that the path names, got " in found["toy/fine,micro,0"]
    assert "size~nano,replicate~0.json: not valid JSON: " in found["toy/fine,nano,0"]
    assert found["plain/a"].endswith("label~a.json: checksum mismatch: the record was modified after it was written")
    with measured.measuring(*EVERYTHING):
        assert measured.measure().code == 0
    assert stale(measured) == {}
