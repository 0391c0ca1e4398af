"""`stepbench gpu-check`, `make gpu-check`: test, tune and measure the Triton kernels on this GPU within eight minutes.

1. Run `pytest -m gpu`, which checks every implementation against float64.
2. Search this device's tile shapes, if they have never been searched.
3. Measure the attention cells at the shapes that papers show, the most important first, until the time is over. The
   cells that are left are listed, and the next run measures them.
4. Write every record of this machine into one file, with the output of the tests and the tile shapes used.

Needs torch, triton, pytest, hypothesis, PyYAML, psutil and rich, and installs nothing, for it is made for machines
without internet access. Exit status: 0 on success, 1 if a test failed or cells are left, 2 if it cannot run here.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stepbench.process import lifeline

BUDGET_S = 480.0
TEST_S, TUNE_S = 180.0, 150.0  # limits, so that time for cells is left
NEEDED = {"torch": "torch", "triton": "triton", "pytest": "pytest", "hypothesis": "hypothesis", "yaml": "PyYAML",
          "psutil": "psutil", "rich": "rich"}  # fmt: skip
TOKENS, WIDTH = 16_384, 2048  # batch · seq and heads · head dim of the papers' figures
OUTPUT = Path("results", "bundles")


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("gpu-check", help="test, tune and measure the Triton kernels on this GPU")
    parser.set_defaults(run=main)


def main(_options: argparse.Namespace | None = None) -> int:
    """Run the four parts in the current folder and return the exit status."""
    start = time.monotonic()
    if missing := [package for module, package in NEEDED.items() if importlib.util.find_spec(module) is None]:
        return _refuse(f"missing packages: {', '.join(missing)}; the GPU check needs {', '.join(NEEDED.values())}")
    import torch  # 1 s

    if not torch.cuda.is_available():
        return _refuse("the GPU check needs a CUDA device, and there is none")
    from stepbench.kernels.triton import tiles  # 0.1 s
    from stepbench.pipeline import bundle, config
    from stepbench.pipeline.bench import Bench
    from stepbench.pipeline.state import States

    root = Path.cwd()
    file = root / "config.yaml"
    # The settings are those of the repository, which `make check` has checked; jsonschema may be missing here.
    bench = Bench(config.read(file), root=root, schema=root / config.SCHEMA, files=[file], checked=True)
    architecture = tiles.architecture_of(torch.cuda.get_device_capability())
    tests = _run([sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests/kernels"], TEST_S)
    tuning: dict[str, Any] | None = None
    if not tiles.read_table().get(architecture, {}).get("machine"):
        tuning = _run([sys.executable, "-m", "stepbench", "tune"], TUNE_S)
        tiles.read_table.cache_clear()
    cells = in_order(bench.grid("attention"))
    left = measure(States(bench), cells, deadline=start + BUDGET_S)
    path = bundle.pack(
        bench, root / OUTPUT, more={"tests": tests, "tuning": tuning, "tiles": tiles.read_table(), "left": left}
    )
    for each in left:
        _say(f"not measured within {BUDGET_S:.0f} s: {each}")
    _say(f"measured {len(cells) - len(left)} of {len(cells)} cells; all results are in {path}")
    return 1 if left or tests["exit_code"] or (tuning or {}).get("exit_code") else 0


def in_order(grid: Sequence[Any]) -> list[Any]:
    """Return the cells at the papers' shapes: long and causal ones first, and of these all implementations together."""
    shown = [cell for cell in grid if cell.batch * cell.seq == TOKENS and cell.heads * cell.head_dim == WIDTH]
    return sorted(shown, key=lambda cell: (not cell.causal, cell.seq < 2048, cell.seq, cell.head_dim))


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


def _run(command: list[str], limit_s: float) -> dict[str, Any]:
    """Run a command for at most `limit_s`, then kill it and its children; print its output, return how it ended."""
    start = time.monotonic()
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
        said = f"{said.rstrip()}\nended after {limit_s:g} s"
    _say(said)
    return {
        "command": command[1:],
        "exit_code": child.returncode,
        "duration_s": time.monotonic() - start,
        "closing_lines": said.strip().splitlines()[-40:],
    }


def _refuse(sentence: str) -> int:
    print(f"stepbench: {sentence}", file=sys.stderr)
    return 2


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
