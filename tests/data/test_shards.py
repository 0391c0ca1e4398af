"""Shards on disk: what is written, and that nothing damaged, foreign or malicious is read."""

import errno
import json
import os
import pickle
import shutil
import stat
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stepbench.data import disk_shards, shards
from stepbench.data.shards import ShardError, ShardSet

SET = ShardSet(megabytes=1, context=31, vocabulary=300, seed=7)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / SET.name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "SHARD_BYTES", 300_000)
        shards.write(SET, folder)
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(shards, "SHARD_BYTES", 300_000)
    return Path(shutil.copytree(written, tmp_path / written.name))


def test_an_index_states_what_the_shards_are(folder: Path) -> None:
    index = json.loads((folder / "index.json").read_text())
    assert index["dtype"] == "<u2"
    assert (index["samples"], index["sample_tokens"]) == (7936, 63)
    assert [each["file"] for each in index["shards"]] == [f"shard_000{number}.bin" for number in range(4)]
    assert sum(each["samples"] for each in index["shards"]) == 7936
    assert sum((folder / each["file"]).stat().st_size for each in index["shards"]) == 7936 * 63 * 2 <= 1_000_000
    assert all(len(each["sha256"]) == 64 for each in index["shards"])


def test_a_shard_is_about_128_mb() -> None:
    large = ShardSet(megabytes=30_000, context=128, vocabulary=10_000, seed=0)
    sizes = [samples * large.sample_bytes for samples in large.shard_samples]
    assert len(sizes) == 235
    assert all(abs(size - 128_000_000) < large.sample_bytes for size in sizes[:-1])
    assert sum(large.shard_samples) == large.samples


def test_the_disk_holds_what_memory_holds(folder: Path) -> None:
    memory = shards.in_memory(SET)
    disk = disk_shards.on_disk(SET, shards.check(SET, folder))
    assert [len(each) for each in memory] == [len(each) for each in disk]
    for drawn, read in zip(memory, disk, strict=True):
        assert np.array_equal(drawn, np.stack([read[row] for row in range(len(read))]))
        assert drawn.max() < 300
    assert not np.array_equal(memory[0], memory[1])


def test_equal_definitions_give_equal_bytes_and_another_seed_gives_others(folder: Path, tmp_path: Path) -> None:
    for seed in (7, 8):
        again = ShardSet(1, 31, 300, seed)
        shards.write(again, tmp_path / "again")
        same = (tmp_path / "again/shard_0000.bin").read_bytes() == (folder / "shard_0000.bin").read_bytes()
        assert same == (seed == 7)


def test_a_name_is_a_definition() -> None:
    assert SET.name == "1mb~31~300~7"
    assert ShardSet.named(SET.name) == SET
    for name in ("1mb~31~300", "01mb~31~300~7", "1mb~31~300~7/..", "../1mb~31~300~7", "1mb~31~300~7\n", "-1mb~3~3~3"):
        with pytest.raises(ValueError, match="a folder of shards must be named"):
            ShardSet.named(name)


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ((1, 31, 65_537, 0), "`vocabulary` of shards must be from 2 to 65536, got 65537"),
        ((0, 31, 300, 0), "`megabytes` must hold at least one sample of 126 bytes, got 0"),
        ((1, 0, 300, 0), "`context` must be from 1 and `seed` from 0, got 0 and 0"),
    ],
)
def test_what_cannot_be_made_is_refused(values: tuple[int, int, int, int], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        ShardSet(*values)


def cut(folder: Path) -> None:
    os.truncate(folder / "shard_0001.bin", 1000)


def grow(folder: Path) -> None:
    with (folder / "shard_0001.bin").open("ab") as file:
        file.write(b"x")


def alter(folder: Path) -> None:
    with (folder / "shard_0001.bin").open("r+b") as file:
        file.write(b"??")


def remove(folder: Path) -> None:
    (folder / "shard_0001.bin").unlink()


def exchange(folder: Path) -> None:
    (folder / "shard_0001.bin").write_bytes((folder / "shard_0002.bin").read_bytes())


@pytest.mark.parametrize("damage", [cut, grow, alter, remove, exchange])
def test_a_damaged_shard_is_named(folder: Path, damage: Callable[[Path], None]) -> None:
    damage(folder)
    with pytest.raises(ShardError, match=r"shard_0001\.bin: ") as caught:
        shards.check(SET, folder)
    assert len(str(caught.value).splitlines()) == 1


def test_a_shard_that_is_cut_while_it_is_read_is_named(folder: Path) -> None:
    disk = disk_shards.on_disk(SET, shards.check(SET, folder))
    cut(folder)
    with pytest.raises(ShardError, match=r"shard_0001\.bin: the shard ends before sample 2000"):
        disk[1][2000]


def changed(folder: Path, **values: object) -> None:
    file = folder / "index.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def entry(folder: Path, **values: object) -> None:
    index = json.loads((folder / "index.json").read_text())
    index["shards"][1] |= values
    changed(folder, shards=index["shards"])


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch PWNED",)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda f: (f / "index.json").unlink(), "the index of the shards is missing"),
        (lambda f: (f / "index.json").write_text("{"), "not a complete JSON document"),
        (lambda f: (f / "index.json").write_text("[" * 100_000), "not a complete JSON document"),
        (lambda f: (f / "index.json").write_bytes(pickle.dumps(Bomb())), "not a complete JSON document"),
        (lambda f: (f / "index.json").write_text("[]"), "`version` must be 1"),
        (lambda f: changed(f, version=2), "`version` must be 1, got '2'"),
        (lambda f: changed(f, dtype="O"), "`dtype` must be '<u2', got 'O'"),
        (lambda f: changed(f, seed=8), "`seed` must be 7, got '8'"),
        (lambda f: changed(f, samples=7936.0), "`samples` must be 7936, got '7936.0'"),
        (lambda f: changed(f, samples=10**400), "`samples` must be 7936, got '1000"),
        (lambda f: changed(f, shards=[]), "`shards` must list 4 shards"),
        (lambda f: changed(f, shards={"0": 1}), "`shards` must list 4 shards"),
        (lambda f: entry(f, file="../../secret.bin"), "`shards` must have the entry"),
        (lambda f: entry(f, file="/etc/passwd"), "`shards` must have the entry"),
        (lambda f: entry(f, bytes=10**400), "`shards` must have the entry"),
        (lambda f: entry(f, sha256=None), "`shards` must have a checksum for shard_0001.bin"),
    ],
    ids=["gone", "cut", "deep", "pickle", "list", "version", "dtype", "seed", "float", "huge", "empty", "object",
         "traversal", "absolute", "huge bytes", "no checksum"],
)  # fmt: skip
def test_an_index_that_cannot_be_believed_is_refused(
    folder: Path, spoil: Callable[[Path], None], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    spoil(folder)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(ShardError) as caught:
        shards.check(SET, folder)
    assert problem in str(caught.value)
    assert "index.json: " in str(caught.value)
    assert len(str(caught.value)) < 600
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    assert not list(folder.parent.rglob("PWNED"))


def test_a_disk_without_space_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda _: usage(10, 10, 1_000_000))
    with pytest.raises(OSError, match="269435392 bytes needed, 1000000 free") as caught:
        shards.write(SET, tmp_path / "there")
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / "there"))
    assert list((tmp_path / "there").iterdir()) == []


def test_a_data_set_that_could_not_be_written_says_why_once_and_is_tried_again(folder: Path) -> None:
    shards.refuse(folder, "the disk is full")
    with pytest.raises(ShardError, match=r"^the disk is full$"):
        shards.check(SET, folder)
    assert not (folder / "index.json").exists()
    shards.write(SET, folder)
    assert len(shards.check(SET, folder)) == 4


def test_everybody_may_read_shards(folder: Path) -> None:
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o644}


def test_shards_that_were_left_half_written_are_written_again(folder: Path) -> None:
    (folder / "index.json").unlink()
    cut(folder)
    (folder / "shard_0099.bin").write_bytes(b"left by another")
    (folder / ".shard_0001.bin.77").write_bytes(b"left by one that was killed")
    shards.write(SET, folder)
    assert len(shards.check(SET, folder)) == 4
    assert not (folder / "shard_0099.bin").exists()
    assert not (folder / ".shard_0001.bin.77").exists()


def test_forgetting_pages_changes_no_byte(folder: Path) -> None:
    files = shards.check(SET, folder)
    assert disk_shards.forget(files) == hasattr(os, "posix_fadvise")
    assert shards.check(SET, folder) == files
