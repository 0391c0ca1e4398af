"""The profiler's events, scripted and real: what belongs to which phase, operator, kernel and range."""

import gzip
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import record_function

from stepbench.measure import profiler
from stepbench.measure.measurement import UnsupportedError


def event(
    name: str,
    start: float,
    end: float,
    *,
    children: tuple[Any, ...] = (),
    kernels: tuple[tuple[str, float], ...] = (),
    sequence: int = -1,
    device: DeviceType = DeviceType.CPU,
) -> SimpleNamespace:
    inside = sum(child.cpu_time_total for child in children)
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start, end=end),
        cpu_time_total=end - start,
        self_cpu_time_total=end - start - inside,
        cpu_children=list(children),
        kernels=[SimpleNamespace(name=kernel, duration=duration) for kernel, duration in kernels],
        sequence_nr=sequence,
        device_type=device,
    )


def family(*events: Any) -> list[Any]:
    return [each for root in events for each in (root, *family(*root.cpu_children))]


def scripted() -> list[Any]:
    """Two steps, 1000 µs apart: a product in a named range, its gradient in the backward pass."""
    found: list[Any] = []
    for step in (0.0, 1000.0):
        number = 7 if step == 0 else 8
        product = event("aten::mm", step + 20, step + 50, kernels=(("gemm", 40.0),), sequence=number)
        outer = event("aten::matmul", step + 12, step + 60, children=(product,), sequence=number)
        named = event("part: scores", step + 10, step + 70, children=(outer,))
        gradient = event("aten::mm", step + 120, step + 140, kernels=(("gemm", 60.0),))
        node = event(
            "autograd::engine::evaluate_function: MmBackward0",
            step + 110,
            step + 150,
            children=(gradient,),
            sequence=number,
        )
        other = event("autograd::engine::evaluate_function: AddBackward0", step + 160, step + 170, sequence=99)
        marks = [("forward", 5, 100), ("backward", 105, 200), ("step", 2, 205)]
        found += [event(f"{profiler.MARK}{name}", step + start, step + end) for name, start, end in marks]
        found += family(named, node, other)
        # What the device itself did stands in the list as well, and would count twice.
        found.append(event("gemm", step + 30, step + 70, device=DeviceType.CUDA))
    found.append(event("aten::mm", 5000, 5001))  # outside of every phase
    return found


@pytest.fixture
def seen() -> profiler.Profile:
    return profiler.read(scripted(), ["forward", "backward"], ranges="part: ")


def test_phases_are_seconds_of_each_step(seen: profiler.Profile) -> None:
    assert seen.phase_s == {
        "forward": pytest.approx([95e-6] * 2),
        "backward": pytest.approx([95e-6] * 2),
        "step": pytest.approx([203e-6] * 2),
    }


def test_operators_are_counted_by_step_and_phase_without_what_they_call(seen: profiler.Profile) -> None:
    found = {(each.phase, each.name): each for each in seen.operators}
    assert found["forward", "aten::mm"] == profiler.Operator(
        "forward", "aten::mm", 1.0, pytest.approx(30e-6), pytest.approx(40e-6)
    )
    assert found["forward", "aten::matmul"].self_s == pytest.approx(18e-6)
    assert found["forward", "aten::matmul"].device_s == 0
    assert found["backward", "aten::mm"].device_s == pytest.approx(60e-6)
    assert all(name in ("forward", "backward") for name, _ in found)


def test_kernels_know_the_operator_that_launched_them(seen: profiler.Profile) -> None:
    assert [(each.phase, each.name, each.operator, each.calls) for each in seen.kernels] == [
        ("backward", "gemm", "aten::mm", 1.0),
        ("forward", "gemm", "aten::mm", 1.0),
    ]


def test_a_range_goes_on_in_the_backward_pass(seen: profiler.Profile) -> None:
    found = {each.phase: each for each in seen.ranges}
    assert found["forward"] == profiler.Range("forward", "scores", 1.0, pytest.approx(60e-6), pytest.approx(40e-6))
    assert found["backward"] == profiler.Range("backward", "scores", 1.0, pytest.approx(40e-6), pytest.approx(60e-6))


def test_a_phase_that_was_not_seen_is_refused() -> None:
    with pytest.raises(ValueError, match="did not record the phase optimizer"):
        profiler.read(scripted(), ["forward", "optimizer"], ranges="part: ")


def test_a_real_step_is_told_apart_and_its_trace_kept(tmp_path: Path) -> None:
    layer = nn.Linear(32, 32)
    inputs = torch.randn(8, 32)
    calls = []

    def forward() -> None:
        calls.append("forward")
        with record_function("part: product"):
            hidden = layer(inputs)
        calls[0:0] = [hidden.sum()]  # type: ignore[list-item]

    def backward() -> None:
        calls.pop(0).backward()  # type: ignore[attr-defined]

    trace = tmp_path / "cell.trace.json.gz"
    seen = profiler.run({"forward": forward, "backward": backward}, device="cpu", ranges="part: ", trace=trace)
    assert calls.count("forward") == profiler.PROFILED_STEPS + 1
    assert {name: len(found) for name, found in seen.phase_s.items()} == dict.fromkeys(
        ("forward", "backward", "step"), profiler.PROFILED_STEPS
    )
    found = {(each.phase, each.name): each for each in seen.operators}
    assert found["forward", "aten::addmm"].calls == 1
    assert found["backward", "aten::mm"].calls == 1  # the weight's gradient; the input needs none
    assert (seen.ranges[0].phase, seen.ranges[0].name) == ("forward", "product")
    assert ("backward", "product") in [(each.phase, each.name) for each in seen.ranges]
    assert seen.kernels == []
    assert json.loads(gzip.decompress(trace.read_bytes()))["traceEvents"]
    assert json.loads(json.dumps(seen.details()))["operators"][0].keys() == {
        "phase", "name", "calls", "self_s", "device_s",
    }  # fmt: skip


def test_a_profile_without_kernels_of_the_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without CUPTI every time would be the host's, under captions of device time."""
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    with pytest.raises(UnsupportedError, match="saw no kernel of the GPU"):
        profiler.run({"forward": lambda: torch.ones(2) + 1}, device="cuda", ranges="")
