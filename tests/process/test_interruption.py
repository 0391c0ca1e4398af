"""Two signals that arrive together end a process once."""

import signal
import subprocess
import sys

import pytest

# Blocked signals arrive together as they are let through, which is how a busy machine delivers them.
TOGETHER = """
import signal, sys, tempfile
from stepbench.process import interruption
interruption.{handle}()
both = {{signal.SIGINT, signal.SIGTERM}}
signal.pthread_sigmask(signal.SIG_BLOCK, both)
for sign in both:
    signal.raise_signal(sign)
with tempfile.TemporaryDirectory():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, both)
    for _ in range(1000):
        pass
sys.exit("it was not ended")
"""


@pytest.mark.parametrize("handle", ["leave_on_signals", "end_run_on_signals"])
def test_two_signals_at_once_end_a_process_once_and_let_it_clean_up(handle: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOGETHER.format(handle=handle)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert "Traceback" not in done.stderr
