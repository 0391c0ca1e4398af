import gzip
import json
from pathlib import Path

import pytest
from tests.test_bench import CELL, PATH, ROOT, SETTINGS, write

from stepbench import bundle, config
from stepbench.bench import Bench


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
