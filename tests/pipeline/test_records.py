import dataclasses
import errno
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepbench.pipeline import records
from stepbench.pipeline.records import Record, RecordError

RECORD = Record(
    experiment="end_to_end",
    cell={"size": "nano", "context": 64, "bucket_mib": None},
    status="ok",
    fingerprint={"source": {"stepbench.models.decoder": "0123"}, "definition": {}, "software": {}, "machine": {}},
    started="2026-01-02T03:04:05.678+00:00",
    duration_s=1.5,
    samples={"step_s": [0.25, 0.5], "forward_s": [[0.1, 0.2], [0.2, 0.3]], "loss_nats": [9.2, -1]},
    scalars={"peak_memory_bytes": None, "parameters": 3, "first_layer_dtype": "bfloat16", "fused": True, "drift_s": 0},
    details={"terms": [1, 2], "deep": {"a": [{"b": None}]}},
    protocol={"seed": 0},
    environment={"cpu": "AMD EPYC", "driver": None},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "machine" / "x" / "cell.json"


@pytest.fixture
def written(path: Path) -> Path:
    records.write(path, RECORD)
    return path


def names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def edited(path: Path, edit: Callable[[dict[str, Any]], None], *, seal: bool = True) -> Path:
    """Change a record's file, and by default its checksum with it, so that the field's own check is what refuses it."""
    content = json.loads(path.read_text())
    found = content.pop("checksum")
    edit(content)
    try:
        content["checksum"] = records.checksum(content) if seal else found
    except ValueError:  # not a finite number
        content["checksum"] = found
    path.write_text(json.dumps(content))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(RecordError) as raised:
        records.read(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


# -- whole or not at all -----------------------------------------------------------------------------------------------


def test_what_is_read_is_what_was_written(written: Path) -> None:
    assert records.read(written) == RECORD
    assert RECORD.ok
    assert written.stat().st_mode & 0o777 == 0o644


def test_a_record_is_text_that_people_can_read(written: Path) -> None:
    text = written.read_text()
    assert text.endswith("}\n")
    assert '"experiment": "end_to_end"' in text.splitlines()[1]


def test_a_record_leaves_no_other_file(written: Path) -> None:
    records.write(written, dataclasses.replace(RECORD, duration_s=2.0))
    assert names_in(written.parent) == ["cell.json"]
    assert records.read(written).duration_s == 2.0


@pytest.mark.parametrize("call", ["fsync", "fchmod", "replace"])
@pytest.mark.parametrize("there_before", [True, False])
def test_a_write_that_fails_leaves_the_old_file_and_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch, call: str, there_before: bool
) -> None:
    if there_before:
        records.write(path, RECORD)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(OSError, match="No space left"):
            records.write(path, dataclasses.replace(RECORD, duration_s=2.0))
    assert names_in(path.parent) == (["cell.json"] if there_before else [])
    if there_before:
        assert records.read(path) == RECORD


def test_a_write_that_is_interrupted_leaves_the_old_file_and_no_other(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        records.write(written, dataclasses.replace(RECORD, duration_s=2.0))
    assert names_in(written.parent) == ["cell.json"]
    assert records.read(written) == RECORD


def test_a_file_system_that_takes_half_a_file_keeps_the_old_one(written: Path) -> None:
    """The kernel itself refuses the rest here (RLIMIT_FSIZE), as a full disk does."""
    code = """
import resource, signal, sys
from pathlib import Path
from stepbench.pipeline import records
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
record = records.read(Path(sys.argv[1]))
try:
    records.write(Path(sys.argv[1]), record)
except OSError as error:
    print("refused", error.strerror)
"""
    before = written.read_bytes()
    done = subprocess.run([sys.executable, "-c", code, str(written)], capture_output=True, text=True, check=True)
    assert done.stdout == "refused File too large\n"
    assert written.read_bytes() == before
    assert names_in(written.parent) == ["cell.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"status": "fine"},
        {"status": "error"},
        {"duration_s": -1.0},
        {"duration_s": float("nan")},
        {"samples": {"step_s": [float("inf")]}},
        {"samples": {"step_s": (0.1,)}},
        {"scalars": {"sizes": [1]}},
    ],
)
def test_what_could_not_be_read_is_not_written(path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(RecordError):
        records.write(path, dataclasses.replace(RECORD, **change))
    assert not path.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_details_that_are_not_json_are_not_written(path: Path, value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        records.write(path, dataclasses.replace(RECORD, details={"a": [value]}))
    assert not path.exists()


# -- reading is strict -------------------------------------------------------------------------------------------------


def test_a_missing_record_is_not_a_bad_one(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        records.read(path)


def test_the_order_of_keys_and_the_layout_mean_nothing(written: Path) -> None:
    content = json.loads(written.read_text())
    written.write_text(json.dumps(dict(reversed(content.items())), indent=4))
    assert records.read(written) == RECORD


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"version": 1}{', "not valid JSON"),
        (b"\x80\x04\x95", "not valid JSON"),
        (b"\x00" * 100, "not valid JSON"),
        (b"[]", "must be a JSON object, got list"),
        (b"null", "must be a JSON object, got NoneType"),
        (b"{}", "`version` must be 1, got None"),
        (b'{"version": 1}', "missing key `cell`"),
        (b"NaN", "NaN is not a number that JSON allows"),
        (b'{"a": -Infinity}', "-Infinity is not a number that JSON allows"),
        (b'{"a": 1, "b": 2, "a": 1}', "duplicate key `a`"),
        (b'{"c": {"b": 1, "b": 2}}', "duplicate key `b`"),
        (b"9" * 5000, "not valid JSON"),
        (b"[" * 1_000_000, "not valid JSON"),
        (b'{"a":' * 1_000_000, "not valid JSON"),
    ],
)
def test_a_file_that_is_no_record_is_named(path: Path, content: bytes, message: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert message in refusal(path)


def test_a_truncated_record_is_refused_wherever_it_was_cut(written: Path) -> None:
    content = written.read_bytes().rstrip()
    for end in range(0, len(content), 7):
        written.write_bytes(content[:end])
        refusal(written)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("version", 2, "`version` must be 1, got 2"),
        ("version", "1", "`version` must be 1, got '1'"),
        ("version", True, "`version` must be a whole number, got bool"),
        ("version", 1.0, "`version` must be a whole number, got float"),
        ("status", "good", "`status` must be one of ok, oom, timeout, unsupported, error, got 'good'"),
        ("status", "oom", "`reason` must not be empty where `status` is oom"),
        ("status", None, "`status` must be a string, got NoneType"),
        ("cell", [], "`cell` must be an object, got list"),
        ("experiment", 3, "`experiment` must be a string, got int"),
        ("fingerprint", None, "`fingerprint` must be an object, got NoneType"),
        ("reason", 3, "`reason` must be a string or null, got int"),
        ("started", 3, "`started` must be a string, got int"),
        ("duration_s", "1", "`duration_s` must be a number, got str"),
        ("duration_s", True, "`duration_s` must be a number, got bool"),
        ("duration_s", -0.5, "`duration_s` must be finite and not negative, got -0.5"),
        ("duration_s", 10**400, "`duration_s` must be finite"),
        ("samples", [], "`samples` must be an object, got list"),
        ("samples", {"step_s": 1.0}, "`samples.step_s` must be a list of numbers, got float"),
        ("samples", {"step_s": {"a": 1}}, "`samples.step_s` must be a list of numbers, got dict"),
        ("samples", {"step_s": ["1"]}, "`samples.step_s` must hold finite numbers, got '1'"),
        ("samples", {"step_s": [None]}, "`samples.step_s` must hold finite numbers, got None"),
        ("samples", {"step_s": [True]}, "`samples.step_s` must hold finite numbers, got True"),
        ("samples", {"step_s": [0.1, -0.1]}, "`samples.step_s` must be finite and not negative, got -0.1"),
        ("samples", {"step_s": [[0.1], [-0.1]]}, "`samples.step_s` must be finite and not negative, got -0.1"),
        ("samples", {"step_s": [[0.1], []]}, "`samples.step_s` must hold as many numbers of each rank, got [0, 1]"),
        ("samples", {"step_s": [[0.1], 0.1]}, "`samples.step_s` must"),
        ("samples", {"step_s": [0.1, [0.1]]}, "`samples.step_s` must"),
        ("samples", {"step_s": [[0.1], None]}, "`samples.step_s` must"),
        ("samples", {"step_s": [[[0.1]]]}, "`samples.step_s` must hold finite numbers, got [0.1]"),
        ("samples", {"step_s": [10**400]}, "`samples.step_s` must"),
        ("scalars", {"peak_memory_bytes": -1}, "`scalars.peak_memory_bytes` must be finite and not negative, got -1"),
        ("scalars", {"peak_memory_bytes": 10**400}, "`scalars.peak_memory_bytes` must be finite"),
        (
            "scalars",
            {"parameters": []},
            "`scalars.parameters` must be a number, a string, a truth value or null, got list",
        ),
        ("environment", "here", "`environment` must be an object, got str"),
        ("traceback", [], "`traceback` must be a string or null, got list"),
        ("kind", 3, "`kind` must be a string or null, got int"),
        ("kind", "oom", "`kind` must be null where `status` is ok, got 'oom'"),
        ("extra", 1, "unknown key `extra`; valid are experiment, cell, "),
    ],
)
def test_a_field_that_cannot_be_is_named(written: Path, key: str, value: Any, message: str) -> None:
    assert refusal(edited(written, lambda content: content.update({key: value}))).startswith(message)


@pytest.mark.parametrize("where", ["details", "environment", "protocol", "fingerprint", "cell", "scalars", "samples"])
def test_a_number_beyond_all_numbers_is_refused_everywhere(written: Path, where: str) -> None:
    """`1e999` is valid JSON, and Python reads it as infinity."""
    edited(written, lambda content: content[where].update({"key": "HERE"}))
    text = written.read_text().replace('"HERE"', "[1e999]" if where == "samples" else "1e999")
    assert "1e999" in text
    written.write_text(text)
    refusal(written)


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Record) if field.name != "kind"])
def test_every_key_must_be_there(written: Path, key: str) -> None:
    message = refusal(edited(written, lambda content: content.pop(key)))
    missing = f"missing key `{key}`"
    assert message == ("`version` must be 1, got None" if key == "version" else missing)


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Record) if field.name != "version"])
def test_a_record_that_was_edited_by_hand_is_refused(written: Path, key: str) -> None:
    other = {"samples": {"step_s": [0.2, 0.5]}, "status": "oom", "reason": "why", "traceback": "line", "kind": "oom"}
    values: dict[str, Any] = {"duration_s": 1.4, "experiment": "warmup", "started": "2026-01-02T03:04:05.679+00:00"}

    def edit(content: dict[str, Any]) -> None:
        content[key] = other.get(key, values.get(key, {"size": "micro"}))
        content["status"] = "oom" if key == "kind" else content["status"]
        content["reason"] = content["reason"] or ("why" if content["status"] != "ok" else None)

    message = refusal(edited(written, edit, seal=False))
    assert message == "checksum mismatch: the record was modified after it was written"


@pytest.mark.parametrize("checksum", [None, "", 3, "0" * 64])
def test_the_checksum_must_be_there_and_fit(written: Path, checksum: Any) -> None:
    content = json.loads(written.read_text())
    content["checksum"] = checksum
    written.write_text(json.dumps(content))
    assert refusal(written).startswith("checksum mismatch")


def test_a_file_too_large_is_refused_before_it_is_read(written: Path) -> None:
    with written.open("r+b") as file:
        file.truncate(records.MAX_BYTES + 1)  # a hole: no byte of it lies on the disk
    assert refusal(written) == f"a record must have at most {records.MAX_BYTES} bytes, got {records.MAX_BYTES + 1}"


def test_a_folder_in_a_records_place_is_refused_by_name(path: Path) -> None:
    path.mkdir(parents=True)
    refusal(path)


def test_nesting_is_refused_at_every_depth_and_never_an_accident(written: Path) -> None:
    """Reading and checking give up at slightly different depths, so each depth around the limit is tried."""
    text, limit = written.read_text(), sys.getrecursionlimit()
    for depth in (100, *range(limit - 150, limit + 50), 10 * limit):
        written.write_text(text.replace('"deep": {', '"deep": {"nested": ' + "[" * depth + "]" * depth + ", "))
        refusal(written)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    key=st.sampled_from([field.name for field in dataclasses.fields(Record)]),
    inner=st.none() | st.sampled_from(["step_s", "x_bytes", "x"]),
    value=json_values,
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=200)
def test_any_content_is_a_record_or_a_sentence(written: Path, key: str, inner: str | None, value: Any) -> None:
    records.write(written, RECORD)
    edited(written, lambda content: content.update({key: value if inner is None else {inner: value}}))
    try:
        records.read(written)
    except RecordError:
        refusal(written)


def test_a_refusal_can_be_written_to_any_file(written: Path) -> None:
    """A lone surrogate is valid in JSON and not in UTF-8; a newline in a key would make two lines of one reason."""
    edited(written, lambda content: content["samples"].update({"a\ud800\nb": 1}))
    assert re.fullmatch(r"`samples\.a.*b` must be a list of numbers, got int", refusal(written).encode().decode())


# -- kinds -------------------------------------------------------------------------------------------------------------


def test_a_failure_keeps_its_kind(path: Path) -> None:
    record = dataclasses.replace(RECORD, status="oom", kind="predicted_oom", reason="90 GiB")
    records.write(path, record)
    assert records.read(path) == record


def test_a_kind_that_does_not_exist_is_refused(path: Path) -> None:
    with pytest.raises(RecordError, match=r"`kind` must be one of wrong_result, predicted_oom, .*, got 'bad luck'"):
        records.write(path, dataclasses.replace(RECORD, status="oom", kind="bad luck", reason="why"))


def test_a_record_from_before_there_were_kinds_is_read_with_its_checksum(written: Path) -> None:
    edited(written, lambda content: content.pop("kind"))
    assert '"kind"' not in written.read_text()
    assert records.read(written) == RECORD
    edited(written, lambda content: content.update(status="error", reason="why"))
    assert (records.read(written).status, records.read(written).kind) == ("error", None)


def test_a_refusal_holds_file_and_problem_apart(written: Path) -> None:
    written.write_bytes(b"[]")
    with pytest.raises(RecordError) as raised:
        records.read(written)
    assert (raised.value.path, raised.value.problem) == (written, "a record must be a JSON object, got list")
