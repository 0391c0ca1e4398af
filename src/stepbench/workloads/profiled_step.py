"""The step that is profiled: in the measuring process, and again in one of its own under nsys.

python -m stepbench.workloads.profiled_step order.json
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from stepbench.data import tokens
from stepbench.kernels.api import bind
from stepbench.measure import nsys
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.models.decoder import Decoder
from stepbench.models.ranged_attention import ranged_attention
from stepbench.models.sizes import ModelSize
from stepbench.models.training import TrainingStep, precision_reason, set_precision

RECORDED_STEPS = 3


@dataclass(frozen=True)
class Profiled:
    """What is profiled, beside the size."""

    context: int
    batch: int
    precision: str
    implementation: str
    passes: str


def make(setting: Setting, what: Profiled, *, steps: int) -> TrainingStep:
    """Build the step; eager attention carries a range around each of its parts, compiled attention cannot.

    Raises:
        UnsupportedError: the device cannot do what is asked for.
    """
    if (reason := precision_reason(what.precision, setting.device)) is not None:
        raise UnsupportedError(reason)
    torch.manual_seed(setting.protocol["seed"])
    set_precision(what.precision)
    compiled = what.implementation == "compiled"
    model: nn.Module = Decoder(
        ModelSize(**setting.definition["size"]),
        vocabulary=setting.definition["vocabulary"],
        attention=bind("naive") if compiled else ranged_attention,
        device=setting.device,
    )
    return TrainingStep(
        cast(nn.Module, torch.compile(model, fullgraph=True)) if compiled else model,
        tokens.synthetic(
            vocabulary=setting.definition["vocabulary"],
            batch=what.batch,
            context=what.context,
            seed=setting.protocol["seed"],
        ),
        device=setting.device,
        precision=what.precision,
        passes=what.passes,
        steps=steps,
    )


def under_nsys(setting: Setting, what: Profiled) -> dict[str, Any]:
    """Return what nsys says about the same step, or why it says nothing; its report is kept beside the record."""
    if (reason := nsys.missing_reason(setting.device)) is not None:
        return {"reason": reason}
    report = None if setting.artifacts is None else Path(f"{setting.artifacts}{nsys.SUFFIX}")
    with tempfile.TemporaryDirectory(prefix="stepbench-") as folder:
        order = Path(folder, "order.json")
        order.write_text(json.dumps({"setting": setting.plain(), "what": dataclasses.asdict(what)}), encoding="utf-8")
        command = [sys.executable, "-m", "stepbench.workloads.profiled_step", str(order)]
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
    setting, what = Setting(**order["setting"]), Profiled(**order["what"])
    torch.set_num_threads(setting.protocol["threads"])
    warmup_steps = setting.protocol["warmup_steps"]
    step = make(setting, what, steps=warmup_steps + RECORDED_STEPS)
    for _ in range(warmup_steps):
        _run(step.phases, lambda _: contextlib.nullcontext())
    on_cuda = setting.device == "cuda"
    if on_cuda:
        torch.cuda.synchronize()
        torch.cuda.profiler.start()
    for _ in range(RECORDED_STEPS):
        _run(step.phases, torch.cuda.nvtx.range if on_cuda else lambda _: contextlib.nullcontext())
    if on_cuda:
        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
    step.loss_values()


def _run(phases: dict[str, Callable[[], None]], named: Callable[[str], contextlib.AbstractContextManager[Any]]) -> None:
    for name, work in phases.items():
        with named(name):
            work()


if __name__ == "__main__":
    _main(sys.argv[1])
