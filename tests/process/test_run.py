"""What becomes of a measurement; how its process is started and ended is tried for real in tests/workflow."""

import dataclasses
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.pipeline.test_bench import CELL, PATH, ROOT, SETTINGS
from tests.pipeline.test_machine import H100
from tests.pipeline.test_machine import write as write_described

from stepbench.measure import environment
from stepbench.pipeline import config, machine, records
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States
from stepbench.process import run

OK = {"status": "ok", "samples": {"step_s": [0.1]}, "scalars": {}, "details": {}, "protocol": {"clock": "host"}}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(run, "Attempt", Unstarted)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(SETTINGS))
    return Bench(SETTINGS, root=tmp_path, schema=ROOT / config.SCHEMA, files=[file])


class Unstarted:
    """Stands in for a measuring process that is never asked anything."""

    def __init__(self, log: Path) -> None:
        assert log.suffix == ".log"

    def end(self) -> None:
        pass


def supervised(
    monkeypatch: pytest.MonkeyPatch, outcome: dict[str, Any], meanwhile: Callable[[], object] = list
) -> None:
    """Have the measuring process end with `outcome`, and something else happen while it runs."""

    def supervise(*_: Any, **__: Any) -> dict[str, Any]:
        meanwhile()
        return {"duration_s": 0.5, **outcome}

    monkeypatch.setattr(run, "_supervise", supervise)


# -- records -----------------------------------------------------------------------------------------------------------


def test_a_measurement_becomes_a_fresh_record(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    supervised(monkeypatch, OK)
    found = run.measure_cell(States(bench), CELL)
    assert found == records.read(bench.root / PATH)
    assert (found.status, found.samples, found.duration_s) == ("ok", {"step_s": [0.1]}, 0.5)
    assert found.protocol["clock"] == "host"
    assert found.protocol["threads"] == 2
    assert found.protocol["vocabulary"] == 300
    assert {"before", "after", "git_commit"} <= found.environment.keys()
    assert States(bench).of(CELL).kind == "fresh"


def test_a_failure_becomes_a_record_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    supervised(monkeypatch, {"status": "oom", "reason": "MemoryError: no message", "traceback": "line"})
    found = run.measure_cell(States(bench), CELL)
    assert (found.status, found.reason, found.traceback) == ("oom", "MemoryError: no message", "line")


def test_another_machine_than_described_is_never_measured(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervised(monkeypatch, OK, lambda: pytest.fail("it was measured"))
    described = dataclasses.replace(machine.here("cpu", bench.machine), cpu_cores=1000, described="2026-11-30")
    file = machine.file_of(tmp_path, bench.machine)
    file.parent.mkdir()
    file.write_text(json.dumps(dataclasses.asdict(described)))
    states = States(Bench(SETTINGS, root=tmp_path, schema=ROOT / config.SCHEMA))
    found = run.measure_cell(states, CELL)
    assert (found.status, found.kind, found.samples) == ("error", "landed_elsewhere", {})
    told = f"landed on {environment.node()}, which is not {bench.machine} as described: "
    assert found.reason == told + f"`cpu_cores` is {machine.here('cpu').cpu_cores} instead of 1000"
    assert states.of(CELL).kind == "failed"  # the next run tries again


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"device_names": ("NVIDIA H100 80GB HBM3",) * 4},
            "`device_names` is 4 × NVIDIA H100 80GB HBM3 instead of 8 × NVIDIA H100 80GB HBM3",
        ),
        (
            {"device_names": ("NVIDIA A100-SXM4-80GB",) * 8, "driver": "575.1"},
            "`device_names` is 8 × NVIDIA A100-SXM4-80GB instead of 8 × NVIDIA H100 80GB HBM3; "
            "`driver` is 575.1 instead of 570.12",
        ),
        (
            {"device": "cpu", "device_names": ("AMD EPYC",), "driver": None},
            "`device` is cpu instead of cuda; `device_names` is 1 × AMD EPYC instead of 8 × NVIDIA H100 80GB HBM3; "
            "`driver` is none instead of 570.12",
        ),
        ({"software": H100.software | {"torch": "2.14.1"}}, "`torch` is 2.14.1 instead of 2.13.0"),
    ],
    ids=["fewer devices", "other devices", "no device", "another torch"],
)
def test_a_landing_elsewhere_tells_in_what(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], told: str
) -> None:
    supervised(monkeypatch, OK, lambda: pytest.fail("it was measured"))
    write_described(tmp_path)
    settings = SETTINGS | {"machine": H100.name, "device": "auto", "scale": "gpu"}
    there = Bench(settings, root=tmp_path, schema=ROOT / config.SCHEMA)
    monkeypatch.setattr(machine, "here", lambda *_: dataclasses.replace(H100, described="", **changes))
    found = run.measure_cell(States(there), there.grid("warmup")[0])
    assert (found.status, found.kind, found.samples) == ("error", "landed_elsewhere", {})
    assert found.reason == f"landed on {environment.node()}, which is not {H100.name} as described: {told}"
    assert found.environment == {"node": environment.node()}


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda text: text.replace("vocabulary: 300", "vocabulary: 400"), "config.yaml was edited"),
        (lambda text: text.replace("vocabulary: 300", "vocabulary: ["), "config.yaml was edited"),
        (lambda text: "# A comment.\n" + text, None),
        (lambda text: yaml.safe_dump(dict(reversed(yaml.safe_load(text).items())), sort_keys=False), None),
    ],
    ids=["a value", "half written", "a comment", "the order of keys"],
)
def test_settings_that_are_edited_meanwhile_cost_the_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, edit: Callable[[str], str], reason: str | None
) -> None:
    (file,) = bench.files
    supervised(monkeypatch, OK, lambda: file.write_text(edit(file.read_text())))
    found = run.measure_cell(States(bench), CELL)
    if reason is None:
        assert found.ok
    else:
        assert found.reason == f"discarded: source or configuration changed during the measurement ({reason})"
        assert (found.status, found.kind, found.samples, found.duration_s) == ("error", "source_changed", {}, 0.5)


def test_data_that_is_replaced_meanwhile_costs_the_result(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "words.txt"
    text.write_text("one two three")
    settings = {**SETTINGS, "data": {"source": "words.txt", "corpus_bytes": 20000}}
    reading = Bench(settings, root=tmp_path, schema=ROOT / config.SCHEMA)
    supervised(monkeypatch, OK, lambda: text.write_text("one two three four"))
    found = run.measure_cell(States(reading), CELL)
    assert found.status == "error"
    assert found.reason
    assert "definition: data.content was " in found.reason


@pytest.mark.parametrize(
    ("measured", "reason"),
    [
        ({"samples": {"step_s": [float("nan")]}}, "`samples.step_s` must hold finite numbers, got nan"),
        ({"samples": {"step_s": [-0.1]}}, "`samples.step_s` must be finite and not negative, got -0.1"),
        ({"samples": {"step_s": 0.1}}, "`samples.step_s` must be a list of numbers, got float"),
        ({"scalars": {"x_bytes": float("inf")}}, "`scalars.x_bytes` must be finite, got inf"),
        ({"details": {"a": [float("inf")]}}, "not representable in JSON: Out of range float values are not"),
    ],
)
def test_what_no_record_can_hold_is_the_cells_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, measured: dict[str, Any], reason: str
) -> None:
    supervised(monkeypatch, {**OK, **measured})
    found = run.measure_cell(States(bench), CELL)
    assert found == records.read(bench.root / PATH)
    assert (found.status, found.kind) == ("error", "unrecordable")
    assert found.reason
    assert found.reason.startswith(f"the measurement cannot be recorded: {reason}")
    assert (found.samples, found.scalars, found.details) == ({}, {}, {})


# -- how a child ends that left no answer ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("returncode", "kills", "log", "kind", "reason"),
    [
        (-signal.SIGKILL, (3, 3), "", "killed", "the measuring process was killed by SIGKILL"),
        (-signal.SIGKILL, (None, None), "", "killed", "the measuring process was killed by SIGKILL"),
        (-signal.SIGKILL, (3, 4), "", "oom", "killed by the kernel's OOM killer"),
        (-signal.SIGSEGV, (3, 4), "", "killed", "the measuring process was killed by SIGSEGV"),
        (
            3,
            (0, 0),
            "a\nlast words\n\n",
            "no_result",
            "exited with status 3 and no result; its output ends with: last words",
        ),
        (0, (0, 0), "", "no_result", "exited with status 0 and no result; it has no output"),
        (1, (0, 0), "\udcff\x1b[31mred", "no_result", "exited with status 1 and no result; its output ends with: "),
    ],
)
def test_a_death_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    returncode: int,
    kills: tuple[int | None, int | None],
    log: str,
    kind: str,
    reason: str,
) -> None:
    path = tmp_path / "log"
    path.write_bytes(log.encode(errors="surrogateescape"))
    monkeypatch.setattr(environment, "oom_kills", lambda: kills[1])
    outcome = run._death(returncode, kills[0], path)
    assert outcome["kind"] == kind
    assert outcome["status"] == ("oom" if kind == "oom" else "error")
    assert reason in outcome["reason"]
