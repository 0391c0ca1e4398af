"""`stepbench gpu-check`, `make gpu-check`: what a first hour on a GPU should tell, in nine minutes.

1. Describe the devices: what torch sees, what the driver says.
2. Run `pytest -m gpu`, which checks every implementation against float64.
3. Search this device's tile shapes, as far as time goes, if they have never been searched on it.
4. Time the likeliest two tiles of each kernel, and our implementations beside flash and cuDNN, with what is predicted.
5. Measure attention at the shapes that papers and leaderboards show, the most important first.
6. Measure the grid `gpu_quick` as far as time goes. What is left is listed, and the next run measures it.
7. Write every record of this machine into one file, with the times of 4 (`stepbench kernels --refit` reads them), the
   tile shapes of this GPU, and the output of each part, and print a summary.

A part that fails does so by itself: its output is in the file, and the next part runs. Needs torch, triton, pytest,
hypothesis, PyYAML, psutil and rich, and installs nothing, for it is made for machines without internet access. Exit
status: 0 on success, 1 if a part failed or cells are left, 2 if it cannot run here or no GPU would be measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from stepbench import architectures, terminal
from stepbench.measure import devices
from stepbench.process import lifeline, variables

BUDGET_S = 540.0
# Limits, so that time is left for what comes after.
TEST_S, TUNE_S, KERNELS_S, ATTENTION_S = 150.0, 120.0, 75.0, 150.0
END_S = 15.0  # of TUNE_S and KERNELS_S, for the start of the process and its last timing
LAST_WORDS_S = 5.0  # for what is interrupted, to say what it has found
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
    from stepbench.pipeline import bundle, capability, config, inputs
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
    attention_cells = [*quick.grid("attention"), *whole.grid("attention")]
    shown = in_order(capability.without_bf16(attention_cells, ()) if quick.is_without_bf16 else attention_cells)
    if (reason := inputs.lacks_compiler(quick, [*shown, *quick.cells])) is not None:
        return _refuse(reason)
    left: list[str] = []
    parts = Parts()
    parts.run("devices", lambda: _describe(quick.device, root))
    parts.run("tests", lambda: _command([sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/kernels"], TEST_S))
    tiles: dict[str, Any] = {}
    kernels: dict[str, Any] = {}
    parts.run("tuning", lambda: _tune(tiles))
    parts.run("kernels", lambda: _kernels(kernels))

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
    text = summary(States(whole), shown, parts, left, kernels.get("timed", []))
    _say(text)
    more = {"parts": parts.results, "left": left, "summary": text, "kernels": kernels, "tiles": tiles}
    path = bundle.pack(quick, root / OUTPUT, more=more)
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
    from stepbench.measure import environment

    found = {**environment.describe(device, root), **environment.state(device), "driver": devices.driver()}
    sentence = devices.unasked()
    return "\n".join(filter(None, [sentence, json.dumps(found, indent=1, default=str)]))


def _tune(found: dict[str, Any]) -> str:
    """Search this GPU's tile shapes, if they have never been searched; put the table as it stands then into `found`."""
    from stepbench.kernels.triton import tiles, tune, tuned  # 1 s, of torch and triton

    here = devices.found().devices[0]
    architecture = architectures.table_of(here.capability)
    if here.capability is None or architecture is None:
        return f"there are no tile shapes for {here.name}"
    found |= tiles.read_table()[architecture]
    dtype = architectures.sixteen_bits(architectures.pair(here.capability))
    if tuned.is_measured(found, here.name, list(tune.shipped_problems(dtypes=(dtype,)))):
        return f"{architecture} has tile shapes that were measured on {here.name}"
    try:
        return _command([sys.executable, "-m", "stepbench", "tune", "--seconds", str(max(TUNE_S - END_S, 0.0))], TUNE_S)
    finally:
        tiles.read_table.cache_clear()
        found |= tiles.read_table()[architecture]


def _kernels(found: dict[str, Any]) -> str:
    """Time kernels and implementations in a process of their own; put what it wrote into `found`, however it ends."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "kernels.jsonl")
        command = [sys.executable, "-m", "stepbench", "kernels", "--measure", str(file)]
        try:
            return _command([*command, "--seconds", str(max(KERNELS_S - END_S, 0.0))], KERNELS_S)
        finally:
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True) if file.exists() else []
            on, *timed = [json.loads(line) for line in lines if line.endswith("\n")] or [None]  # the last may be cut
            found |= {"on": on, "timed": timed}


def summary(
    states: Any, shown: Sequence[Any], parts: Parts, left: Sequence[str], timed: Sequence[dict[str, Any]] = ()
) -> str:
    """Return what to paste into an issue: the machine, how each part went, and the times of the shapes that matter.

    Args:
        states: of all cells.
        shown: cells.
        parts: that have run.
        left: paths of cells that were not measured.
        timed: lines of `kernel_timings.measure`.
    """
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
    if timed:
        from stepbench.workloads import kernel_timings  # 1 s, of torch and triton

        lines += [kernel_timings.sentence(line) for line in timed if "implementation" in line]
    return "\n".join(lines)


def in_order(grid: Sequence[Any]) -> list[Any]:
    """Return the cells at the shapes that are shown: the leaderboards' first, then the papers' long and causal ones."""

    def on_leaderboard(cell: Any) -> bool:
        return cell.dtype != "fp32" and all(getattr(cell, axis) == value for axis, value in LEADERBOARD.items())

    papers = [cell for cell in grid if cell.batch * cell.seq == TOKENS and cell.heads * cell.head_dim == WIDTH]
    papers.sort(key=lambda cell: (not cell.causal, cell.seq < 2048, cell.seq, cell.head_dim))
    return [*filter(on_leaderboard, grid), *papers]


def measure(states: Any, cells: Sequence[Any], *, deadline: float) -> list[str]:
    """Measure cells that are not fresh until `deadline` on the monotonic clock; return the paths of those left.

    A cell that is not done by then is ended, and counts as one that has not been measured.
    """
    from stepbench.process import run  # 0.1 s, and PyYAML may be missing

    left, longest_s = [], 10.0
    for cell in cells:
        if states.of(cell).kind == "fresh":
            continue
        if time.monotonic() + longest_s > deadline:
            left.append(str(states.bench.path(cell)))
            continue
        start = time.monotonic()
        record = run.measure_cell(states, cell, limit_s=deadline - start)
        longest_s = max(longest_s, time.monotonic() - start)
        if time.monotonic() >= deadline and record.status == "timeout":
            left.append(str(states.bench.path(cell)))
        _say(f"{states.bench.path(cell)}: {record.status} {record.reason or ''}".rstrip())
    return left


def _command(command: list[str], limit_s: float) -> str:
    """Run a command as cells run, for at most `limit_s`, then kill it and its children; return its output.

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
            env={**variables.environment(), "PYTHONPATH": path},
        )
        try:
            end = lifeline.wait(child, deadline_s=limit_s, watched=())
            if end == "deadline":  # Ctrl-C has pytest say what has failed so far
                child.send_signal(signal.SIGINT)
                lifeline.wait(child, deadline_s=LAST_WORDS_S, watched=())
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
    terminal.say(sentence)
    return 2


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
