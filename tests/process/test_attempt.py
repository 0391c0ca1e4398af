"""The measuring process: what becomes of what an experiment does, and how it is started, told and ended."""

import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.pipeline.test_bench import ROOT, SETTINGS

from stepbench.experiments import experiment as experiments
from stepbench.experiments.numerics.cell import Cell as Numerics
from stepbench.measure.measurement import (
    Measurement,
    PredictedOutOfMemoryError,
    Setting,
    UnsupportedError,
    WrongResultError,
)
from stepbench.parallel.outcome import ERROR, RankError, RankOutcome, RankTimeoutError
from stepbench.pipeline import config
from stepbench.pipeline.bench import Bench
from stepbench.process import allocator, failures, lifeline, variables
from stepbench.process import attempt as attempts


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(SETTINGS))
    return Bench(SETTINGS, root=tmp_path, schema=ROOT / config.SCHEMA, files=[file])


@pytest.fixture
def attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Measure in this process, with another function in `measure`'s place."""

    def attempt_(measure: Callable[[Numerics, Setting], Measurement], **changes: Any) -> dict[str, Any]:
        real = experiments.load("numerics")
        fake = type("Fake", (), {"cell": real.cell, "measure": staticmethod(measure)})
        monkeypatch.setattr(experiments, "load", lambda _: fake)
        cell = Numerics("accumulation")
        monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
        order = {
            "root": str(Path.cwd()),
            "path": "results/here/numerics/case~accumulation.json",
            "answer": "",
            "device": "cpu",
            "protocol": bench.protocol,
            "definition": {"protocol": {}},
            "tokens": None,
            "shards": None,
            "artifacts": str(bench.root / "stem"),
            "host_memory_gib": None,
            "trust_prediction": True,
            "deadline": None,
            **changes,
        }
        assert real.cell is type(cell)
        return attempts.attempt(json.loads(json.dumps(order)))

    return attempt_


def raising(error: BaseException) -> Callable[..., Measurement]:
    def measure(_cell: Numerics, _setting: Setting) -> Measurement:
        raise error

    return measure


def test_what_measure_returns_is_the_outcome(attempt: Callable[..., dict[str, Any]]) -> None:
    def measure(cell: Numerics, setting: Setting) -> Measurement:
        assert cell == Numerics("accumulation")
        assert (setting.device, setting.protocol["threads"], setting.tokens) == ("cpu", 2, None)
        return Measurement(samples={"step_s": [0.1]}, scalars={"parameters": 3})

    outcome = attempt(measure)
    assert (outcome["status"], outcome["samples"], outcome["scalars"]) == ("ok", {"step_s": [0.1]}, {"parameters": 3})
    assert 0 <= outcome["duration_s"] < 60


@pytest.mark.parametrize(
    ("error", "kind", "reason"),
    [
        (UnsupportedError("no bf16 here"), "unsupported", "no bf16 here"),
        (PredictedOutOfMemoryError("90 GiB"), "predicted_oom", "90 GiB"),
        (MemoryError(), "oom", "MemoryError"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB"),
            "oom",
            "OutOfMemoryError: CUDA out of memory. Tried",
        ),
        (
            RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"
            ),
            "oom",
            "RuntimeError: [enforce fail at alloc_cpu.cpp:124]",
        ),
        (OSError(12, "Cannot allocate memory"), "oom", "OSError: [Errno 12] Cannot allocate memory"),
        (TimeoutError("rank 1 did not answer within 5 s"), "deadline", "rank 1 did not answer within 5 s"),
        (RuntimeError("\n\n  shapes do not fit\nat all"), "exception", "RuntimeError: shapes do not fit"),
        (ArithmeticError("the loss is not finite"), "wrong_result", "ArithmeticError: the loss is not finite"),
        (WrongResultError("the loss is not finite"), "wrong_result", "the loss is not finite"),
        (ZeroDivisionError(), "exception", "ZeroDivisionError"),
        (OverflowError("math range error"), "exception", "OverflowError: math range error"),
        (RankError("rank 1 was killed by SIGKILL"), "rank_failed", "rank 1 was killed by SIGKILL"),
        (RankTimeoutError("rank 1 had no result"), "rank_deadline", "rank 1 had no result"),
    ],
)
def test_what_measure_raises_is_the_reason(
    attempt: Callable[..., dict[str, Any]], error: Exception, kind: str, reason: str
) -> None:
    outcome = attempt(raising(error))
    assert outcome["kind"] == kind
    assert outcome["status"] == failures.STATUSES.get(kind, "error")
    assert outcome["reason"].startswith(reason)
    assert "\n" not in outcome["reason"]
    assert ("traceback" in outcome) == (not isinstance(error, UnsupportedError | PredictedOutOfMemoryError))


def test_a_rank_that_failed_is_named_by_its_number(attempt: Callable[..., dict[str, Any]]) -> None:
    blamed = RankOutcome(3, ERROR, reason="raised MemoryError", exception="MemoryError", kind="oom")
    outcome = attempt(raising(RankError("rank 3 raised MemoryError", blamed=blamed)))
    assert (outcome["status"], outcome["kind"], outcome["details"]) == ("oom", "oom", {"rank": 3})


def test_an_experiment_that_cannot_be_imported_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cell_at(_path: Path) -> None:
        raise ImportError("no such thing")

    monkeypatch.setattr(experiments, "cell_at", cell_at)
    outcome = attempts.attempt({"path": "results/x.json"})
    assert (outcome["kind"], outcome["reason"]) == ("exception", "ImportError: no such thing")


@pytest.mark.parametrize(
    "samples", [{"step_s": [0.0, 0.0]}, {"forward_s": [[0.0], [0]], "loss_nats": [9.0], "x_s": []}]
)
def test_a_clock_that_stands_still_is_an_error(attempt: Callable[..., dict[str, Any]], samples: dict[str, Any]) -> None:
    outcome = attempt(lambda *_: Measurement(samples=samples))
    assert outcome["status"] == "error"
    assert outcome["kind"] == "wrong_result"
    assert outcome["reason"] == "the clock stood still: each of 2 samples is 0 s"


def test_to_wait_may_take_no_time(attempt: Callable[..., dict[str, Any]]) -> None:
    assert attempt(lambda *_: Measurement(samples={"step_s": [0.1], "wait_s": [0.0]}))["status"] == "ok"
    assert attempt(lambda *_: Measurement(samples={"loss_nats": [0.0]}))["status"] == "ok"


def test_an_experiment_knows_its_deadline(attempt: Callable[..., dict[str, Any]]) -> None:
    seen: list[float | None] = []

    def measure(_cell: Numerics, setting: Setting) -> Measurement:
        seen.append(setting.deadline)
        return Measurement()

    attempt(measure, deadline=1234.5)
    attempt(measure)
    assert seen == [1234.5, None]


def test_memory_is_limited_for_as_long_as_it_is_measured(attempt: Callable[..., dict[str, Any]]) -> None:
    before = resource.getrlimit(resource.RLIMIT_AS)
    seen: list[int] = []

    def measure(_cell: Numerics, _setting: Setting) -> Measurement:
        seen.append(resource.getrlimit(resource.RLIMIT_AS)[0])
        return Measurement()

    attempt(measure, host_memory_gib=1000.5)
    attempt(raising(MemoryError()), host_memory_gib=1000)
    assert seen == [int(1000.5 * 2**30)]
    assert resource.getrlimit(resource.RLIMIT_AS) == before


# -- the process -------------------------------------------------------------------------------------------------------


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[attempts.Attempt]:
    monkeypatch.setattr(attempts.tempfile, "gettempdir", lambda: str(tmp_path))  # the host's lock is this test's own
    found = attempts.Attempt(tmp_path / "logs" / "cell.log")
    yield found
    found.end()


def test_without_an_order_it_leaves(started: attempts.Attempt) -> None:
    assert started.process.stdin
    started.process.stdin.close()
    assert started.process.wait(timeout=120) == 0
    assert started.log.read_text() == ""


def test_an_order_is_carried_out(started: attempts.Attempt, tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    started.order(
        {
            "root": str(Path.cwd()),
            "path": "results/here/numerics/case~accumulation.json",
            "answer": str(answer),
            "device": "cpu",
            "protocol": {"seed": 0, "threads": 1},
            "definition": {},
            "tokens": None,
            "shards": None,
            "artifacts": str(tmp_path / "cell"),
            "host_memory_gib": None,
            "trust_prediction": True,
            "deadline": None,
        }
    )
    assert lifeline.wait(started.process, deadline_s=120, watched=()) == "ended"
    outcome = json.loads(answer.read_text())
    assert outcome["status"] == "ok"
    with_glibc = sys.platform == "linux" and "CS_GNU_LIBC_VERSION" in os.confstr_names
    own = ":".join(f"glibc.malloc.{name}={value}" for name, value in allocator.SETTINGS.items())
    assert outcome["protocol"]["allocator"] == (own if with_glibc else None)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_how_its_ranks_end_is_told_although_whoever_starts_it_ignores_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts.tempfile, "gettempdir", lambda: str(tmp_path))
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        found = attempts.Attempt(tmp_path / "cell.log")
    finally:
        signal.signal(signal.SIGCHLD, before)
    status = Path(f"/proc/{found.process.pid}/status")

    def ignores() -> bool:
        (ignored,) = re.findall(r"^SigIgn:\s*(\w+)", status.read_text(), re.MULTILINE)
        return bool(int(ignored, 16) >> (signal.SIGCHLD - 1) & 1)

    end = time.monotonic() + 60
    while ignores() and time.monotonic() < end:
        time.sleep(0.02)
    assert not ignores()
    found.end()


def test_an_order_to_a_dead_process_is_no_error_here(started: attempts.Attempt) -> None:
    started.process.kill()
    started.process.wait()
    started.order({"cell": "x" * 100_000})
    assert lifeline.wait(started.process, deadline_s=10, watched=()) == "ended"


@pytest.mark.parametrize(
    "name", ["OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS", "TORCHDYNAMO_DISABLE", "TORCH_COMPILE_DISABLE"]
)
def test_whoever_starts_it_has_no_say_in_threads_and_compiler(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert name not in variables.environment()
    assert name not in variables.changing()


def test_temporary_files_stand_in_a_folder_whose_name_the_compiler_need_not_quote(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for folder, expected in ((str(tmp_path), str(tmp_path)), (str(tmp_path / "with a space"), "/tmp")):  # noqa: S108
        monkeypatch.setattr("tempfile.gettempdir", lambda folder=folder: folder)
        assert variables.environment()["TMPDIR"] == expected


def test_whoever_starts_it_has_no_say_in_its_malloc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.rtld.optional_static_tls=2048:glibc.malloc.mmap_max=9")
    found = variables.environment()
    assert not [name for name in found if name.startswith("MALLOC_")]
    other, *own = found["GLIBC_TUNABLES"].split(":")
    assert other == "glibc.rtld.optional_static_tls=2048"
    assert own == [f"glibc.malloc.{name}={value}" for name, value in allocator.SETTINGS.items()]
