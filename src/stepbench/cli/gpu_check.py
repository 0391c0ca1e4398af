"""`stepbench gpu-check`, `make gpu-check`: what a first hour on a GPU should tell, in nine minutes.

1. Describe the devices: what torch sees, what the driver says.
2. Run `pytest -m gpu`, which checks every implementation against float64.
3. Search this device's tile shapes, if they have never been searched.
4. Measure attention at the shapes that papers and leaderboards show, the most important first.
5. Measure the grid `gpu_quick` as far as time goes. What is left is listed, and the next run measures it.
6. Write every record of this machine into one file, with the output of each part, and print a summary.

A part that fails does so by itself: its output is in the file, and the next part runs. Needs torch, triton, pytest,
hypothesis, PyYAML, psutil and rich, and installs nothing, for it is made for machines without internet access. Exit
status: 0 on success, 1 if a part failed or cells are left, 2 if it cannot run here or no GPU would be measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stepbench.architectures import architecture_of
from stepbench.process import lifeline

BUDGET_S = 540.0
TEST_S, TUNE_S, ATTENTION_S = 150.0, 120.0, 150.0  # limits, so that time is left for what comes after
NEEDED = {"torch": "torch", "triton": "triton", "pytest": "pytest", "hypothesis": "hypothesis", "yaml": "PyYAML",
          "psutil": "psutil", "rich": "rich"}  # fmt: skip
TOKENS, WIDTH = 16_384, 2048  # batch · seq and heads · head dim of the papers' figures
LEADERBOARD = {"seq": 16_384, "batch": 1, "heads": 16, "head_dim": 64, "causal": True}  # forward + backward in one call
LINES = 200  # of a part's output, in the file
OUTPUT = Path("results", "bundles")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("gpu-check", help="test, tune and measure the Triton kernels on this GPU")
    parser.set_defaults(run=main)


def main(_options: argparse.Namespace | None = None) -> int:
    """Run the parts in the current folder and return the exit status."""
    start = time.monotonic()
    if missing := [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]:
        return _refuse(f"missing packages: {', '.join(missing)}; the GPU check needs {', '.join(NEEDED.values())}")
    from stepbench.pipeline import bundle, config
    from stepbench.pipeline.bench import GPU_SCALES, Bench
    from stepbench.pipeline.state import States

    root = Path.cwd()
    file = root / "config.yaml"

    def opened(scale: str) -> Bench:
        # The settings are those of the repository, which `make check` has checked; jsonschema may be missing here.
        settings = {**config.read(file), "scale": scale}
        return Bench(settings, root=root, schema=root / config.SCHEMA, files=[file], checked=True)

    try:
        quick, whole = (opened(scale) for scale in GPU_SCALES)
    except config.ConfigError as error:
        return _refuse(f"the GPU check needs a GPU that can be measured: {error}")
    shown = in_order([*quick.grid("attention"), *whole.grid("attention")])
    left: list[str] = []
    parts = Parts()
    parts.run("devices", lambda: _describe(quick.device, root))
    parts.run("tests", lambda: _command([sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/kernels"], TEST_S))
    parts.run("tuning", _tune)

    def attention() -> str:
        until = min(start + BUDGET_S, time.monotonic() + ATTENTION_S)
        left.extend(measure(States(whole), shown, deadline=until))
        return ""

    def grid() -> str:
        left.extend(measure(States(quick), quick.cells, deadline=start + BUDGET_S))
        return ""

    parts.run("attention", attention)
    parts.run("grid", grid)
    left = list(dict.fromkeys(left))  # the quick grid has some of the shapes that are shown
    text = summary(States(whole), shown, parts, left)
    _say(text)
    path = bundle.pack(quick, root / OUTPUT, more={"parts": parts.results, "left": left, "summary": text})
    _say(f"all results are in {path}")
    return 1 if left or parts.failed else 0


class FailedPartError(Exception):
    """A part has failed; the message is its output."""


class Parts:
    """Runs parts, of which none ends the others.

    Attributes:
        results: name -> `failed`, `duration_s` and `output`, the last lines.
    """

    def __init__(self) -> None:
        self.results: dict[str, dict[str, Any]] = {}

    @property
    def failed(self) -> list[str]:
        """The names of the parts that failed."""
        return [name for name, result in self.results.items() if result["failed"]]

    def run(self, name: str, part: Callable[[], str]) -> None:
        """Run a part and keep what it says, or how it failed."""
        _say(f"== {name}")
        start, failed = time.monotonic(), False
        try:
            output = part()
        except FailedPartError as error:
            output, failed = str(error), True
        except Exception:
            output, failed = traceback.format_exc(), True
        if output:
            _say(output)
        lines = output.strip().splitlines()[-LINES:]
        self.results[name] = {"failed": failed, "duration_s": time.monotonic() - start, "output": lines}


def _describe(device: str, root: Path) -> str:
    from stepbench.measure import devices, environment

    found = {**environment.describe(device, root), **environment.state(device), "driver": devices.driver()}
    return json.dumps(found, indent=1, default=str)


def _tune() -> str:
    import torch  # 1 s

    from stepbench.kernels.triton import tiles

    architecture = architecture_of(torch.cuda.get_device_capability())
    if tiles.read_table().get(architecture, {}).get("machine"):
        return f"{architecture} has measured tile shapes"
    said = _command([sys.executable, "-m", "stepbench", "tune"], TUNE_S)
    tiles.read_table.cache_clear()
    return said


def summary(states: Any, shown: Sequence[Any], parts: Parts, left: Sequence[str]) -> str:
    """Return what to paste into an issue: the machine, how each part went, and the times of the shapes that matter."""
    host = states.bench.host
    lines = [
        f"{host.device_count} × {host.device_name}, driver {host.driver}, torch {host.software['torch']}, "
        f"triton {host.software['triton']}",
        *(
            f"{name}: {'FAILED' if result['failed'] else 'ok'} in {result['duration_s']:.0f} s"
            for name, result in parts.results.items()
        ),
        f"cells left for the next run: {len(left)}",
    ]
    for cell in shown:
        record = states.of(cell).record
        if record is None:
            continue
        shape = f"{cell.implementation} {cell.seq}, {cell.heads} × {cell.head_dim}{', causal' if cell.causal else ''}"
        if seconds := record.samples.get("forward_backward_s"):
            lines.append(f"{shape}: forward + backward {1e3 * statistics.median(seconds):.3f} ms")
        elif not record.ok:
            lines.append(f"{shape}: {record.status}, {record.reason}")
    return "\n".join(lines)


def in_order(grid: Sequence[Any]) -> list[Any]:
    """Return the cells at the shapes that are shown: the leaderboards' first, then the papers' long and causal ones."""

    def on_leaderboard(cell: Any) -> bool:
        return cell.dtype == "bf16" and all(getattr(cell, axis) == value for axis, value in LEADERBOARD.items())

    papers = [cell for cell in grid if cell.batch * cell.seq == TOKENS and cell.heads * cell.head_dim == WIDTH]
    papers.sort(key=lambda cell: (not cell.causal, cell.seq < 2048, cell.seq, cell.head_dim))
    return [*filter(on_leaderboard, grid), *papers]


def measure(states: Any, cells: Sequence[Any], *, deadline: float) -> list[str]:
    """Measure cells that are not fresh until `deadline` on the monotonic clock; return the paths of those left."""
    from stepbench.process import run  # 0.1 s, and PyYAML may be missing

    left, longest_s = [], 10.0
    for cell in cells:
        if states.of(cell).kind == "fresh":
            continue
        if time.monotonic() + longest_s > deadline:
            left.append(str(states.bench.path(cell)))
            continue
        start = time.monotonic()
        record = run.measure_cell(states, cell)
        longest_s = max(longest_s, time.monotonic() - start)
        _say(f"{states.bench.path(cell)}: {record.status} {record.reason or ''}".rstrip())
    return left


def _command(command: list[str], limit_s: float) -> str:
    """Run a command for at most `limit_s`, then kill it and its children; return its output.

    Raises:
        FailedPartError: it failed, or took too long.
    """
    with tempfile.TemporaryFile() as output:
        path = os.pathsep.join(["src", os.environ.get("PYTHONPATH", "")])
        child = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        try:
            end = lifeline.wait(child, deadline_s=limit_s, watched=())
        finally:
            lifeline.kill_group(child)
        output.seek(0)
        said = output.read().decode(errors="replace")
    if end == "deadline":
        raise FailedPartError(f"{said.rstrip()}\nended after {limit_s:g} s")
    if child.returncode:
        raise FailedPartError(f"{said.rstrip()}\nexit status {child.returncode}")
    return said


def _refuse(sentence: str) -> int:
    print(f"stepbench: {sentence}", file=sys.stderr)
    return 2


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
