"""Shards are outputs of a rule: made once, again only if their definition changes, and named where they are damaged."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.workflow.bench_copy import CONFIG, READER, Copy

SMALL, LARGE = "reader/tiny,1", "reader/tiny,2"
PRESET = {"d_model": 8, "d_ff": 8, "encoder_layers": 1, "decoder_layers": 1, "heads": 1, "vocabulary": 300}


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy in which an experiment has read 1 MB from disk, and others have read nothing."""
    copy = Copy.make(tmp_path_factory.mktemp("reading") / "bench")
    copy.add_experiment("reader", READER, "preset~{preset},megabytes~{megabytes}")
    copy.configure(CONFIG | {"presets": {"tiny": PRESET}})
    copy.set("experiments.reader", {"cpu": [{"preset": ["tiny"], "megabytes": [1]}]})
    done = copy.measure()
    assert done.code == 0, done.err
    return copy


@pytest.fixture
def read(reading: Copy, tmp_path: Path) -> Iterator[Copy]:
    copy = Copy.duplicate(reading, tmp_path / "bench")
    yield copy
    copy.close()


def made(copy: Copy) -> dict[str, int]:
    """Return the folders of shards and when their index was written."""
    return {index.parent.name: index.stat().st_mtime_ns for index in copy.root.rglob("shards/*/index.json")}


def test_another_size_makes_new_shards_and_leaves_other_cells_alone(read: Copy) -> None:
    before = made(read)
    assert list(before) == ["1mb~100~300~0"]
    assert read.record(SMALL)["scalars"] == {"shards": 1}
    read.set("experiments.reader.cpu", [{"preset": ["tiny"], "megabytes": [1, 2]}])
    with read.measuring(LARGE):
        done = read.measure()
    assert done.code == 0, done.err
    after = made(read)
    assert sorted(after) == ["1mb~100~300~0", "2mb~100~300~0"]
    assert after["1mb~100~300~0"] == before["1mb~100~300~0"]
    with read.measuring():
        assert "Nothing to be done" in read.measure().err


def test_a_fresh_record_does_not_ask_for_shards_that_are_gone(read: Copy) -> None:
    shutil.rmtree(read.root / "results/data/shards")
    with read.measuring():
        assert read.measure().code == 0
    assert made(read) == {}
    read.path(SMALL).unlink()
    with read.measuring(SMALL):
        assert read.measure().code == 0
    assert list(made(read)) == ["1mb~100~300~0"]


def test_another_folder_is_another_disk(read: Copy, tmp_path: Path) -> None:
    read.set("data.shards_dir", str(tmp_path / "a mount; touch PWNED"))
    assert read.kinds()[SMALL] == "stale"
    assert "shards_dir" in next(text for path, text in read.states().items() if "reader" in path)
    with read.measuring(SMALL):
        done = read.measure()
    assert done.code == 0, done.err
    assert (tmp_path / "a mount; touch PWNED/1mb~100~300~0/index.json").exists()
    assert not list(tmp_path.rglob("PWNED"))


def test_a_damaged_shard_is_a_record_that_names_it_and_the_rest_goes_on(read: Copy) -> None:
    os.truncate(read.root / "results/data/shards/1mb~100~300~0/shard_0000.bin", 77)
    read.path(SMALL).unlink()
    read.path("plain/a").unlink()
    with read.measuring(SMALL, "plain/a"):
        read.measure()
    record = read.record(SMALL)
    assert record["status"] == "error"
    assert "shard_0000.bin: a shard must have 999774 bytes, got 77" in record["reason"]
    assert read.record("plain/a")["status"] == "ok"


def test_the_second_door_makes_shards_too(read: Copy) -> None:
    shutil.rmtree(read.root / "results/data/shards")
    read.path(SMALL).unlink()
    done = read.python("-m", "stepbench", "measure", "reader", "preset~tiny,megabytes~1")
    assert done.code == 0, done.err
    assert json.loads(read.path(SMALL).read_text())["scalars"] == {"shards": 1}


def test_a_preset_that_is_none_is_told_before_any_work(read: Copy) -> None:
    read.set("experiments.reader.cpu", [{"preset": ["tinny"], "megabytes": [1]}])
    done = read.snakemake()
    assert done.code != 0
    assert any(
        "names the preset 'tinny', which does not exist (did you mean tiny?); valid are tiny" in line
        for line in done.said
    )
