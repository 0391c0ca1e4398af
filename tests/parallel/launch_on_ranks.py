"""What the ranks of `test_launch.py` run, and how a rank fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist


def introduce(**said: Any) -> dict[str, Any]:
    """Return who this rank is, what it was told, and how many threads it has."""
    total = torch.ones(1)
    dist.all_reduce(total)
    return {
        "rank": dist.get_rank(),
        "ranks": dist.get_world_size(),
        "sum": total.item(),
        "threads": torch.get_num_threads(),
        "said": said,
        "local_rank": os.environ["LOCAL_RANK"],
        "store": os.environ["MASTER_ADDR"],
    }


def return_a_tensor() -> Any:
    """Return something that has no place in JSON, on rank 1."""
    return torch.ones(1) if dist.get_rank() == 1 else None


def misbehave(*, how: str, folder: str = "") -> int:
    """Meet the other rank, and then, as rank 1, do not meet it again; rank 0 waits for it in an all-reduce."""
    if folder:
        Path(folder, str(dist.get_rank())).write_text(str(os.getpid()))
    meet = torch.ones(1)
    dist.all_reduce(meet)
    if dist.get_rank() == 1:
        fault(how)
    dist.all_reduce(meet)
    return 0


def fault(how: str) -> None:
    """Raise, die, hang or leave."""
    if how == "raise":
        raise ValueError("the second rank has had enough")
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "leave":
        os._exit(0)
    if how == "exit":
        sys.exit(0)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "out of memory":
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1024.00 GiB")
    if how == "hang":
        hang_for_ever()


def hang_for_ever() -> None:
    """Hang, deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(3600)


def deaf(*, how: str) -> None:
    """Rank 1 fails while rank 0 is busy with something else and ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    meet = torch.ones(1)
    dist.all_reduce(meet)
    if dist.get_rank() == 1:
        fault(how)
    time.sleep(3600)


def start_a_process(*, folder: str) -> None:
    """Leave a process behind, as a data loader may."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    Path(folder, f"child-{dist.get_rank()}").write_text(str(child.pid))
