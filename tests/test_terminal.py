"""Sentences for the user are whole lines, beside whatever other processes write to the same terminal or log."""

import os
import socket
import subprocess
import sys

import pytest

from stepbench import terminal


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_all_lines_are_one_write(unbuffered: str) -> None:
    # A datagram socket keeps writes apart, as a pipe or a file does not.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        subprocess.run(
            [sys.executable, "-c", r"from stepbench import terminal; terminal.say('first\nsecond – last')"],
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered, "PYTHONUTF8": "1"},
            stderr=theirs,
            check=True,
        )
        assert ours.recv(1000).decode() == "stepbench: first\nstepbench: second – last\n"
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            ours.recv(1000)


@pytest.mark.parametrize(("sign", "line"), [("", "3 fresh\n"), ("stepbench: ", "stepbench: 3 fresh\n")])
def test_each_line_has_the_sign_in_front(sign: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("3 fresh", sign=sign)
    assert capsys.readouterr() == ("", line)
