"""How a copy of the launcher leaves: as a fresh process would."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("ending", "code", "told"),
    [
        ("sys.exit(0)", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('enough')", 1, "enough\n"),
        ("raise_(KeyboardInterrupt())", -2, ""),
        ("open('/nowhere/job.json')", 1, "No such file or directory: '/nowhere/job.json'\n"),
    ],
)
def test_a_copy_leaves_as_a_fresh_process_does(ending: str, code: int, told: str) -> None:
    """And not into the code around it, which is the launcher's."""
    program = f"""
import sys
from stepbench.parallel import rank

def raise_(error):
    raise error

rank.main = lambda _: {ending}
rank.os.setsid = lambda: None
try:
    rank.main_of_a_copy("job.json")
finally:
    print("came back")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert done.stderr.endswith(told)
    assert done.stdout == ""
