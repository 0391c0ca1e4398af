import dataclasses
import gzip
import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.pipeline.test_bench import CELL, PATH, ROOT, SETTINGS, write

from stepbench.pipeline import bundle, config, history, records
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(SETTINGS, root=tmp_path, schema=ROOT / config.SCHEMA)


def unpacked(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(gzip.decompress(path.read_bytes()))
    return found


def test_a_bundle_holds_every_record_as_its_file_does(bench: Bench, tmp_path: Path) -> None:
    write(bench, CELL)
    found = unpacked(bundle.pack(bench, tmp_path / "out", more={"left": []}))
    name = (
        PATH.relative_to(Path("results", bench.machine)).as_posix() if isinstance(PATH, Path) else PATH.split("/", 2)[2]
    )
    assert found["records"] == {name: json.loads((bench.root / PATH).read_text())}
    assert (found["version"], found["machine"], found["refused"], found["left"]) == (1, bench.machine, {}, [])


def test_a_record_that_cannot_be_believed_is_named_and_left_out(bench: Bench, tmp_path: Path) -> None:
    write(bench, CELL)
    (bench.root / PATH).write_text("{")
    found = unpacked(bundle.pack(bench, tmp_path))
    assert found["records"] == {}
    (reason,) = found["refused"].values()  # type: ignore[attr-defined]
    assert "must be JSON" in reason or "JSON" in reason


def test_what_is_no_record_is_not_packed(bench: Bench, tmp_path: Path) -> None:
    logs = bench.root / "results" / bench.machine / "logs"
    logs.mkdir(parents=True)
    (logs / "last_run.json").write_text("{}")
    assert unpacked(bundle.pack(bench, tmp_path))["records"] == {}


# -- merging -----------------------------------------------------------------------------------------------------------


NAME = Path(*Path(PATH).parts[2:]).as_posix()


@pytest.fixture
def packed(bench: Bench, tmp_path: Path) -> Path:
    """A bundle with one record of this machine."""
    write(bench, CELL)
    return bundle.pack(bench, tmp_path / "out")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Bench:
    """Another folder, on another machine."""
    return Bench(SETTINGS | {"machine": "other-4c"}, root=tmp_path / "elsewhere", schema=ROOT / config.SCHEMA)


def edited(file: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Return a bundle that says something else."""
    content = unpacked(file)
    change(content)
    other = file.with_name("edited.json.gz")
    other.write_bytes(gzip.compress(json.dumps(content).encode()))
    return other


def files(bench: Bench) -> list[Path]:
    return sorted(path for path in bench.root.rglob("*") if path.is_file())


def test_a_merged_record_is_the_packed_one_to_the_byte(bench: Bench, packed: Path, elsewhere: Bench) -> None:
    found = bundle.merge(elsewhere, packed)
    path = Path("results", bench.machine, NAME)
    assert found == bundle.Merged(bench.machine, (path,), (), ())
    assert (elsewhere.root / path).read_bytes() == (bench.root / path).read_bytes()
    assert records.read(elsewhere.root / path).ok
    assert bundle.merge(elsewhere, packed) == bundle.Merged(bench.machine, (), (path,), ())


def test_a_record_of_ones_own_is_fresh_after_it_was_merged_back(bench: Bench, packed: Path) -> None:
    (bench.root / "results" / bench.machine / NAME).unlink()
    bundle.merge(bench, packed)
    assert States(bench).of(CELL).kind == "fresh"


def test_a_conflict_is_shown_and_kept_until_it_is_asked_for(bench: Bench, packed: Path) -> None:
    path = Path("results", bench.machine, NAME)
    before = records.read(bench.root / path)
    records.write(bench.root / path, dataclasses.replace(before, duration_s=77.0))
    found = bundle.merge(bench, packed)
    assert (found.written, found.conflicts) == ((), (path,))
    assert records.read(bench.root / path).duration_s == 77.0
    assert bundle.merge(bench, packed, replace=True).written == (path,)
    assert records.read(bench.root / path) == before


def test_an_unreadable_file_is_a_conflict_too(bench: Bench, packed: Path) -> None:
    path = Path("results", bench.machine, NAME)
    (bench.root / path).write_text("{")
    assert bundle.merge(bench, packed).conflicts == (path,)


def rekeyed(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda content: content.update(records={name: next(iter(content["records"].values()))})


def in_record(**fields: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["records"][NAME].update(fields)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content.update(version=99), "`version` must be 1, got 99"),
        (lambda content: content.update(machine="../../etc"), "`machine` must be a name"),
        (lambda content: content.update(machine="a/b"), "`machine` must be a name"),
        (lambda content: content.update(machine="x\n"), "`machine` must be a name"),
        (lambda content: content.update(machine="data"), "`machine` must be a name"),
        (lambda content: content.update(machine=7), "`machine` must be a name"),
        (lambda content: content.update(records=[]), "`records` must be an object, got list"),
        (rekeyed("../../../PWNED.json"), "must be keyed by <experiment>/<cell>.json"),
        (rekeyed("/etc/PWNED.json"), "must be keyed by <experiment>/<cell>.json"),
        (rekeyed("warmup/../../PWNED.json"), "must be keyed by <experiment>/<cell>.json"),
        (rekeyed(NAME.removesuffix(".json")), "must be keyed by <experiment>/<cell>.json"),
        (rekeyed("nothing/size~nano.json"), "must be keyed by <experiment>/<cell>.json"),
        (rekeyed(NAME.replace("warmup~", "warmup~0")), "must be keyed by <experiment>/<cell>.json"),
        (rekeyed("x" * 10_000), "must be keyed by <experiment>/<cell>.json"),
        (in_record(duration_s=1.5), "checksum mismatch"),
        (in_record(samples={"step_s": ["fast"]}), "must hold finite numbers"),
        (in_record(scalars={"peak_bytes": 10**400}), "must be finite"),
        (in_record(surprise=1), "unknown key `surprise`"),
        (in_record(version=2), "`version` must be 1, got 2"),
        (lambda content: content["records"].update({NAME: [1, 2]}), "a record must be a JSON object, got list"),
    ],
)
def test_what_cannot_be_believed_changes_nothing(
    packed: Path, elsewhere: Bench, change: Callable[[dict[str, Any]], object], told: str
) -> None:
    with pytest.raises(bundle.BundleError) as refusal:
        bundle.merge(elsewhere, edited(packed, change))
    assert told in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 1000 + len(str(packed))
    assert files(elsewhere) == []


def test_a_record_of_another_cell_is_refused(bench: Bench, packed: Path, elsewhere: Bench) -> None:
    other = NAME.replace("warmup~1", "warmup~3")
    assert other != NAME
    with pytest.raises(bundle.BundleError, match="`experiment` and `cell` must be those that the path names"):
        bundle.merge(elsewhere, edited(packed, rekeyed(other)))
    assert files(elsewhere) == []


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("PWNED"),)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "gzip"),
        (b"{}", "gzip"),
        (gzip.compress(b"{")[:-4], "gzip"),
        (gzip.compress(b"{"), "gzip"),
        (gzip.compress(b'{"version": 1, "version": 1}'), "duplicate key `version`"),
        (gzip.compress(b'{"version": NaN}'), "NaN"),
        (gzip.compress(b"[" * 1_000_000), "gzip"),
        (gzip.compress(b"9" * 1_000_000), "gzip"),
        (gzip.compress(b"[]"), "a bundle must be a JSON object, got list"),
        (gzip.compress(pickle.dumps(Malicious())), "gzip"),
        (pickle.dumps(Malicious()), "gzip"),
    ],
    ids=[
        "empty",
        "plain",
        "cut",
        "half a document",
        "a key twice",
        "NaN",
        "deep",
        "a long number",
        "a list",
        "a packed pickle",
        "a pickle",
    ],
)
def test_a_file_that_is_no_bundle_is_refused(
    tmp_path: Path, elsewhere: Bench, data: bytes, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "bench_x.json.gz"
    file.write_bytes(data)
    with pytest.raises(bundle.BundleError, match=told):
        bundle.merge(elsewhere, file)
    assert files(elsewhere) == []
    assert not (tmp_path / "PWNED").exists()


def test_what_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    packed: Path, elsewhere: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_BYTES", 1000)
    bomb = packed.with_name("bomb.json.gz")
    bomb.write_bytes(gzip.compress(b" " * 100_000_000))
    with pytest.raises(bundle.BundleError, match="must unpack to at most 1000 bytes"):
        bundle.merge(elsewhere, bomb)
    monkeypatch.setattr(bundle, "MAX_PACKED_BYTES", 10)
    with pytest.raises(bundle.BundleError, match="must have at most 10 bytes"):
        bundle.merge(elsewhere, bomb)


@pytest.mark.parametrize("filler", [b" ", b"[", b"[],"], ids=["blanks", "deep", "wide"])
def test_time_and_memory_are_bounded(tmp_path: Path, filler: bytes) -> None:
    """A bundle that unpacks to twice what any may, in a process that has a GiB to do it with."""
    bomb = tmp_path / "bench_x.json.gz"
    with gzip.open(bomb, "wb", compresslevel=1) as stream:
        stream.write(b"[")
        for _ in range(2 * bundle.MAX_BYTES // 2**24):
            stream.write(filler * (2**24 // len(filler)))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    (tmp_path / config.SCHEMA).write_text((ROOT / config.SCHEMA).read_text())
    command = f"ulimit -v {2**20}; exec {sys.executable} -m stepbench merge {bomb.name}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert (
        done.stderr == f"stepbench: {bomb.name}: a bundle must unpack to at most {bundle.MAX_BYTES} bytes, got more\n"
    )


def test_a_folder_that_leads_elsewhere_is_not_written_to(bench: Bench, packed: Path, elsewhere: Bench) -> None:
    outside = elsewhere.root.parent / "outside"
    outside.mkdir()
    (elsewhere.root / "results").mkdir(parents=True)
    (elsewhere.root / "results" / bench.machine).symlink_to(outside)
    with pytest.raises(bundle.BundleError, match=r"must be written below .*, got results"):
        bundle.merge(elsewhere, packed)
    assert list(outside.iterdir()) == []


# -- the history -------------------------------------------------------------------------------------------------------


@pytest.fixture
def with_history(bench: Bench, tmp_path: Path) -> Path:
    """A bundle with one record and its history of one."""
    write(bench, CELL)
    standing = bench.root / PATH
    history.replace(standing, dataclasses.replace(records.read(standing), started="2026-02-02T00:00:00.000+00:00"))
    assert "history" not in unpacked(bundle.pack(bench, tmp_path / "without"))
    return bundle.pack(bench, tmp_path / "out", with_history=True)


def test_a_bundle_carries_the_history_where_it_is_asked_for(bench: Bench, with_history: Path, elsewhere: Bench) -> None:
    found = bundle.merge(elsewhere, with_history)
    assert (len(found.written), found.earlier) == (1, 1)
    here, there = (history.read(each.root / "results" / bench.machine / NAME).entries for each in (bench, elsewhere))
    assert [entry.path.read_bytes() for entry in here] == [entry.path.read_bytes() for entry in there]
    assert bundle.merge(elsewhere, with_history).earlier == 0


def test_what_a_merge_replaces_goes_to_the_history(bench: Bench, packed: Path) -> None:
    path = bench.root / "results" / bench.machine / NAME
    records.write(path, dataclasses.replace(records.read(path), duration_s=77.0))
    bundle.merge(bench, packed, replace=True)
    assert [entry.record.duration_s for entry in history.read(path).entries] == [77.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(history=[]), "`history` must be an object, got list"),
        (lambda content: content.update(history={NAME: {}}), "`history` must map each cell to a list, got dict"),
        (lambda content: content.update(history={"../x.json": []}), "must be keyed by <experiment>/<cell>.json"),
        (lambda content: content["history"][NAME][0].update(duration_s=9.0), "checksum mismatch"),
    ],
)
def test_a_history_that_cannot_be_believed_writes_nothing(
    elsewhere: Bench, with_history: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    before = files(elsewhere)
    with pytest.raises(bundle.BundleError, match=re.escape(message)):
        bundle.merge(elsewhere, edited(with_history, change))
    assert files(elsewhere) == before
