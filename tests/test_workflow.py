"""What the Snakefile asks; Snakemake itself runs in tests/workflow."""

import re
import shlex
import subprocess
import sys
from dataclasses import make_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest

from stepbench import cells, workflow
from stepbench.experiments import experiment as experiments


def test_every_axis_of_every_experiment_has_its_pattern() -> None:
    found = workflow.wildcards_of()
    axes = {axis.name: axis for name in experiments.names() for axis in cells.axes(experiments.load(name).cell)}
    assert found.keys() == axes.keys() | {"shards"}
    for name, axis in axes.items():
        assert re.fullmatch(
            found[name], axis.choices[0] if axis.choices else {int: "0", str: "x", bool: "true"}[axis.type]
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
    with pytest.raises(TypeError, match="axis `size` of two must have the type that it has in other experiments"):
        workflow.wildcards_of()


def test_a_measuring_command_leaves_no_shell_behind_whatever_the_folder_is_called(tmp_path: Path) -> None:
    home = tmp_path / "it's a $(touch PWNED) folder"
    (home / "workflow_scripts").mkdir(parents=True)
    (home / "workflow_scripts" / "measure.py").write_text("import os, sys; print(os.getpid(), *sys.argv[1:])")
    command = workflow.measuring_command(SimpleNamespace(basedir=str(home)))
    assert shlex.split(command)[1] == sys.executable
    with subprocess.Popen(["bash", "-c", f"set -e; {command} a b"], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.communicate()[0].split() == [str(shell.pid), "a", "b"]


def test_a_measuring_command_without_a_run_is_refused_in_one_line(tmp_path: Path) -> None:
    script = Path(__file__).parents[1] / "workflow_scripts" / "measure.py"
    done = subprocess.run(
        [sys.executable, script, "results/here/plain/label~a.json", tmp_path / "log"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "stepbench: `.stepbench/run.json` must say what is configured, as a run does when it begins, got none\n"
    )
