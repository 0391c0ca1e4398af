"""The step that is profiled: in the measuring process, and again in one of its own under nsys.

python -m stepbench.workloads.profiled order.json
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stepbench.measure import nsys
from stepbench.measure.measurement import Setting
from stepbench.models.ranged_attention import ranged_attention
from stepbench.workloads import step
from stepbench.workloads.spec import StepSpec
from stepbench.workloads.step import Step

RECORDED_STEPS = 3


def make(spec: StepSpec, setting: Setting, *, steps: int) -> Step:
    """Build the step; eager naive attention carries a range around each of its parts, compiled attention cannot.

    Raises:
        UnsupportedError: the device cannot do what is asked for.
    """
    ranged = spec.attention == "naive" and spec.implementation == "eager"
    return step.build(spec, setting, steps=steps, attention=ranged_attention if ranged else None)


def under_nsys(spec: StepSpec, setting: Setting) -> dict[str, Any]:
    """Return what nsys says about the same step, or why it says nothing; its report is kept beside the record."""
    if (reason := nsys.missing_reason(setting.device)) is not None:
        return {"reason": reason}
    report = None if setting.artifacts is None else Path(f"{setting.artifacts}{nsys.SUFFIX}")
    with tempfile.TemporaryDirectory(prefix="stepbench-") as folder:
        order = Path(folder, "order.json")
        order.write_text(json.dumps({"setting": setting.plain(), "spec": spec.plain()}), encoding="utf-8")
        command = [sys.executable, "-m", "stepbench.workloads.profiled", str(order)]
        try:
            kernels = nsys.record(command, report or Path(folder, f"kept{nsys.SUFFIX}"))
        except nsys.NsysError as error:
            return {"reason": str(error)}
    return {
        "report": report.name if report else None,
        "steps": RECORDED_STEPS,
        "kernels": [dataclasses.asdict(kernel) for kernel in kernels],
    }


def _main(order_path: str) -> None:
    """Warm up, then run the steps that nsys records, a named range around each phase."""
    order = json.loads(Path(order_path).read_text(encoding="utf-8"))
    setting, spec = Setting(**order["setting"]), StepSpec.of_plain(order["spec"])
    torch.set_num_threads(setting.protocol["threads"])
    warmup_steps = setting.protocol["warmup_steps"]
    made = make(spec, setting, steps=warmup_steps + RECORDED_STEPS)
    for _ in range(warmup_steps):
        _run(made.phases, lambda _: contextlib.nullcontext())
    on_cuda = setting.device == "cuda"
    if on_cuda:
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
    for _ in range(RECORDED_STEPS):
        _run(made.phases, torch.cuda.nvtx.range if on_cuda else lambda _: contextlib.nullcontext())
    if on_cuda:
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
    made.loss_values()


def _run(phases: dict[str, Callable[[], None]], named: Callable[[str], contextlib.AbstractContextManager[Any]]) -> None:
    for name, work in phases.items():
        with named(name):
            work()


if __name__ == "__main__":
    _main(sys.argv[1])
