"""What the Snakefile asks; Snakemake itself runs in tests/workflow."""

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import make_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import psutil
import pytest
from tests.pipeline.test_bench import SETTINGS
from tests.pipeline.test_machine import H100, write
from tests.processes import gone

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import cells, workflow
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.config import ConfigError
from stepbench.process import lock

REPOSITORY = Path(__file__).parents[2]


def test_every_axis_of_every_experiment_has_its_pattern() -> None:
    found = workflow.wildcards_of()
    axes = {axis.name: axis for name in experiments.names() for axis in cells.axes(experiments.load(name).cell)}
    assert found.keys() == axes.keys() | {"shards", "described"}
    for name, axis in axes.items():
        assert re.fullmatch(
            found[name], axis.choices[0] if axis.choices else {int: "1", str: "x", bool: "true"}[axis.type]
        )
        assert not re.fullmatch(found[name], "x; touch PWNED")
        assert not re.fullmatch(found[name], "a/b")


def test_one_axis_may_have_other_words_in_another_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    types = {
        "one": make_dataclass("One", [("dtype", Literal["a", "b"])]),
        "two": make_dataclass("Two", [("dtype", Literal["c"])]),
    }
    monkeypatch.setattr(experiments, "names", lambda: ("one", "two"))
    monkeypatch.setattr(experiments, "load", lambda name: SimpleNamespace(cell=types[name]))
    found = workflow.wildcards_of()["dtype"]
    assert [bool(re.fullmatch(found, word)) for word in ("a", "b", "c", "d", "ac")] == [True, True, True, False, False]


def test_one_axis_has_one_type_in_all_experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    types = {"one": make_dataclass("One", [("size", str)]), "two": make_dataclass("Two", [("size", int)])}
    monkeypatch.setattr(experiments, "names", lambda: ("one", "two"))
    monkeypatch.setattr(experiments, "load", lambda name: SimpleNamespace(cell=types[name]))
    with pytest.raises(TypeError, match="axis `size` of two must have the same type as in other experiments"):
        workflow.wildcards_of()


def command_for(tmp_path: Path, settings: dict[str, Any], home: Path = REPOSITORY) -> str:
    bench = SimpleNamespace(settings=settings, root=tmp_path)
    return workflow.measuring_command(SimpleNamespace(basedir=str(home)), bench)  # type: ignore[arg-type]


def test_a_measuring_command_leaves_no_shell_behind_whatever_the_folder_is_called(tmp_path: Path) -> None:
    home = tmp_path / "it's a $(touch PWNED) folder"
    (home / "workflow_scripts").mkdir(parents=True)
    (home / "workflow_scripts" / "measure.py").write_text("import os, sys; print(os.getpid(), *sys.argv[2:])")
    command = command_for(tmp_path, {}, home)
    assert shlex.split(command)[1] == sys.executable
    with subprocess.Popen(["bash", "-c", f"set -e; {command} a b"], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.communicate()[0].split() == [str(shell.pid), "a", "b"]


def test_other_settings_travel_in_another_file_and_all_of_them_do(tmp_path: Path) -> None:
    given = [{"protocol": {"seed": seed}, "limits": {"time_s": 0.1}} for seed in (0, 1)]
    files = [tmp_path / shlex.split(command_for(tmp_path, settings))[-1] for settings in given * 2]
    assert files[:2] == files[2:]
    assert [json.loads(file.read_text()) for file in files] == given * 2


@pytest.mark.parametrize(("rule", "told"), [("measure_warmup", True), ("describe_machine", False)])
def test_nodes_that_have_not_described_themselves_measure_nothing(tmp_path: Path, rule: str, told: bool) -> None:
    """The login node's own grid, paths and fingerprints were once measured on the nodes."""
    job = SimpleNamespace(rule=SimpleNamespace(name=rule), output=["any"])
    run = SimpleNamespace(dag=SimpleNamespace(needrun_jobs=lambda **_: [job]))
    bench = Bench(SETTINGS | {"machine": H100.name}, root=tmp_path, schema=REPOSITORY / "config.schema.yaml")
    sentence = r"`machine` must name a machine that has described itself, .* there is no machines/nvidia-h100-8x\.json"
    with pytest.raises(ConfigError, match=sentence) if told else contextlib.nullcontext():
        workflow._check_described(bench, run)
    write(tmp_path)
    described = SETTINGS | {"machine": H100.name, "device": "auto"}
    workflow._check_described(Bench(described, root=tmp_path, schema=REPOSITORY / "config.schema.yaml"), run)


def test_settings_that_cannot_be_written_end_the_run_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".stepbench").write_text("something else")
    with pytest.raises(SystemExit) as ended:
        command_for(tmp_path, {})
    assert ended.value.code == 1
    assert re.fullmatch(r"stepbench: .*\.json: .*; it cannot be written\n", capsys.readouterr().err)


def test_a_measuring_command_whose_settings_are_gone_ends_in_one_line(tmp_path: Path) -> None:
    command = command_for(tmp_path, {})
    shutil.rmtree(tmp_path / ".stepbench")
    done = subprocess.run(
        ["bash", "-c", f"{command} results/here/plain/label~a.json log"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path)},  # not to wait for what is measured on this host
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"stepbench: \.stepbench/settings/\w+\.json, the settings of this run, is missing; start the run again\n",
        done.stderr,
    )


def test_a_job_that_waited_for_the_host_measures_nothing_when_its_run_has_ended(tmp_path: Path) -> None:
    script = f"{command_for(tmp_path, {})} results/here/plain/label~a.json log"
    lock_file = tmp_path / f"stepbench-{os.getuid()}.lock"
    held = lock.hold(lock_file, "this host")
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    # What stands for Snakemake here is a shell.
    with subprocess.Popen(["bash", "-c", f"({script}) 2> said & wait"], cwd=tmp_path, env=environment) as run:
        job = waiting_for(lock_file, run.pid)
        run.kill()
    os.close(held)
    assert gone([job.pid], within_s=60)
    assert (tmp_path / "said").read_text() == ""
    assert not (tmp_path / "results").exists()


def waiting_for(file: Path, parent: int) -> psutil.Process:
    """Return the child of `parent` that has opened a file, once there is one."""
    while True:
        for child in psutil.Process(parent).children():
            if str(file) in (opened.path for opened in child.open_files()):
                return child
        time.sleep(0.05)


@pytest.mark.parametrize(
    "module",
    ["stepbench.pipeline.workflow", "stepbench.pipeline.bench", "stepbench.process.run", "stepbench.cli.main"],
)
def test_reading_the_snakefile_imports_nothing_heavy(module: str) -> None:
    code = f"""
import sys
import {module}
from pathlib import Path
from stepbench.pipeline.bench import Bench
from stepbench.experiments import experiment
from stepbench.pipeline.state import States
bench = Bench.open(Path({str(Path(__file__).parents[2])!r}))
for name in experiment.names():
    for cell in bench.grid(name):
        States(bench).of(cell)
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"torch", "matplotlib", "triton", "numpy", "scipy", "tokenizers", "jinja2", "snakemake"}
    assert heavy & set(done.stdout.split()) == set()
