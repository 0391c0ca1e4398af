"""What the ranks of several nodes do in tests/parallel/test_team.py."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import distributed


def add(*, number: int) -> dict[str, Any]:
    """Return the sum of all ranks' numbers, and which rank of which node this is."""
    total = torch.tensor([float(number + distributed.get_rank())])
    distributed.all_reduce(total)
    return {
        "sum": total.item(),
        "rank": distributed.get_rank(),
        "local_rank": int(os.environ["LOCAL_RANK"]),
        "node": os.environ["GROUP_RANK"],
        "interface": os.environ.get("GLOO_SOCKET_IFNAME"),
    }


def leave_from_the_second_node(**_: Any) -> None:
    """Have the last rank raise, and the others wait for it."""
    if distributed.get_rank() == distributed.get_world_size() - 1:
        raise ValueError("the last rank has had enough")
    distributed.barrier()


def kill_the_second_node(**_: Any) -> None:
    """End the last rank with its launcher, as a power cut ends a node, and have the others wait for it."""
    if distributed.get_rank() == distributed.get_world_size() - 1:
        os.kill(os.getppid(), 9)
        os._exit(1)
    distributed.barrier()
