"""The allocator's events: a real step whose bytes are known, and a scripted trace of a device that is not here."""

import ast
from pathlib import Path
from typing import Any

import pytest
from tests.measure import watched

from stepbench import versions
from stepbench.measure import allocator_memory, predicted_memory


def test_every_byte_of_a_small_step_is_measured() -> None:
    seen = allocator_memory.watch(watched.SmallStep, device="cpu")
    measured = seen.timeline.scalars()
    assert seen.allocator_peak_bytes == {}
    assert [span.name for span in seen.timeline.spans] == ["forward", "backward", "optimizer"]
    for category in ("parameters", "gradients", "optimizer_state"):
        assert measured[f"before_{category}_bytes"] == watched.PARAMETER_BYTES
    assert measured["forward_after_activations_bytes"] == watched.ACTIVATION_BYTES
    predicted = predicted_memory.predict(watched.SmallStep).scalars()
    assert measured["peak_memory_bytes"] == pytest.approx(predicted["peak_memory_bytes"], rel=0.01)


def event(ts: float, address: int, size: int, device: int) -> dict[str, Any]:
    return {"name": "[memory]", "ph": "i", "ts": ts, "args": {"Addr": address, "Bytes": size, "Device Type": device}}


def mark(name: str, ts: float, dur: float) -> dict[str, Any]:
    return {"name": f"stepbench memory: {name}", "ph": "X", "ts": ts, "dur": dur}


TRACE = [
    {"name": "process_name", "ph": "M", "args": {}},
    event(1.0, 16, 1024, 1),
    event(2.0, 32, 1 << 30, 0),  # the host's memory is not the device's
    mark("first step", 3.0, 10.0),
    event(20.5, 64, 256, 1),
    event(40.5, 64, -256, 1),
    mark("forward", 20.0, 10.0),
    mark("backward", 40.0, 10.0),
]


def test_a_trace_is_read_for_the_device_alone() -> None:
    owned = [("first step", {"parameters": [16]}), ("forward", {}), ("backward", {"parameters": [16]})]
    scalars = allocator_memory.read(TRACE, owned, device="cuda").scalars()
    assert scalars["before_parameters_bytes"] == 1024
    assert scalars["forward_after_activations_bytes"] == 256
    assert scalars["backward_after_activations_bytes"] == 0
    assert scalars["peak_memory_bytes"] == 1280


def test_times_are_seconds() -> None:
    timeline = allocator_memory.read(TRACE, [("first step", {})], device="cuda")
    assert timeline.unit == "s"
    assert timeline.details()["spans"] == [["forward", 0.0, 1e-5], ["backward", 2e-5, 3e-5]]


def test_a_phase_without_a_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="no mark for the phase optimizer"):
        allocator_memory.read(TRACE, [("optimizer", {})], device="cuda")


def test_a_device_that_reports_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="`device` must be one of cpu, cuda, got 'mps'"):
        allocator_memory.watch(watched.SmallStep, device="mps")


def test_a_cpu_keeps_no_history_whatever_was_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(path: Path, *, events: int) -> None:
        raise AssertionError(f"{path}, {events}")

    monkeypatch.setattr(versions, "allocation_history", refuse)
    assert allocator_memory.watch(watched.SmallStep, device="cpu", snapshot=tmp_path / "x").allocator_peak_bytes == {}
    assert list(tmp_path.iterdir()) == []


def test_nothing_in_the_package_unpickles() -> None:
    """Reading a record, a snapshot or a trace of somebody else must never run anything from it."""
    source = Path(allocator_memory.__file__).parents[1]
    found = []
    for file in source.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                found += [f"{file}: {name}" for name in names if name in ("pickle", "cloudpickle", "joblib", "dill")]
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "pd.read_pickle"):
                found.append(f"{file}:{node.lineno}")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                found += [] if ast.unparse(node.value) == "False" else [f"{file}: allow_pickle"]
    assert found == []
