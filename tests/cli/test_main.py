import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stepbench.cli import main as command_line
from stepbench.cli.output import USAGE_EXIT_CODE

ROOT = Path(__file__).parents[2]
NAMES = {
    "ab",
    "again",
    "changes",
    "measure",
    "cells",
    "plan",
    "print",
    "why",
    "history",
    "prune",
    "pack",
    "merge",
    "compare",
    "describe",
    "fits",
    "kernels",
    "tune",
    "gpu-check",
}


@pytest.mark.parametrize("words", [[], ["measure"], ["cells", "--state", "good"], ["nonsense"]])
def test_a_command_that_is_none_shows_its_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        command_line.main(words)
    assert raised.value.code == USAGE_EXIT_CODE
    assert capsys.readouterr().err.startswith("usage: stepbench")


def test_each_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    commands = next(action.choices for action in command_line._parser()._actions if action.dest == "command")
    assert commands is not None
    assert set(commands) == NAMES
    for name in sorted(NAMES):
        with pytest.raises(SystemExit) as raised:
            command_line.main([name, "--help"])
        assert raised.value.code == 0
        assert capsys.readouterr().out.startswith(f"usage: stepbench {name} ")


def test_help_shows_commands_examples_and_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {name} " in text for name in NAMES)
    assert "\nstepbench cells --where size=micro\n" in text
    assert text.endswith("exit status: 0 on success, 1 on failure, 2 on a usage error\n")


def test_output_that_is_not_utf_8_is_no_failure() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    for words in (["--help"], ["measure", "--help"]):
        command = [sys.executable, "-m", "stepbench", *words]
        done = subprocess.run(command, capture_output=True, check=False, env=environment)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"usage: stepbench")
    assert b",?" in done.stdout  # the sign that Latin-1 lacks


def test_the_installed_command_is_this_one() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"stepbench": f"{command_line.__name__}:{command_line.main.__name__}"}


def test_it_starts_without_what_is_heavy() -> None:
    """`stepbench cells` lists the targets of a run; torch takes 1 s to import, matplotlib 0.5 s."""
    code = (
        "import sys; from stepbench.cli import main; main._parser()\n"
        "print(*sorted({'torch', 'triton', 'numpy', 'matplotlib', 'scipy', 'jsonschema'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
