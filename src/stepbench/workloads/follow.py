"""The process on each further node of a measurement on several.

`stepbench.parallel.team` starts it through Slurm, with addresses, port, device, count and token as its arguments; the
rank of its node is that of its task, plus one. Without Slurm `stepbench measure … --node-rank` calls it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from stepbench import terminal
from stepbench.measure import environment
from stepbench.parallel import addresses


def lead(port: int, token: str) -> None:
    """Have this process' measurements wait on a port for followers of the same token that are started by hand."""
    os.environ[addresses.PORT_VARIABLE] = str(port)
    os.environ[addresses.TOKEN_VARIABLE] = token


def follow(found: Sequence[str], port: int, *, device: str, rank: int, count: int, token: str) -> int:
    """Follow node 0 until its call is done.

    Args:
        found: addresses or names of node 0.
        port: on which it listens.
        device: what is measured, `cuda` or `cpu`.
        rank: of this node, from 1.
        count: of nodes.
        token: of the measurement; where nodes are started by hand, what they measure.

    Returns:
        The exit status: 0, or 1 after a sentence on standard error.
    """
    # Late: torch takes 2 s, and the parser of the command line imports this module.
    from stepbench.parallel import team
    from stepbench.parallel.outcome import RankError

    try:
        team.follow(
            found,
            port,
            rank=rank,
            count=count,
            facts=environment.comparable(device),
            node=environment.node(),
            token=token,
        )
    except (team.TeamError, RankError) as error:
        terminal.say(f"{environment.node()}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    found_at, its_port, on, of_nodes, its_token = sys.argv[1:]
    node_rank = int(os.environ["SLURM_PROCID"]) + 1
    sys.exit(
        follow(found_at.split(","), int(its_port), device=on, rank=node_rank, count=int(of_nodes), token=its_token)
    )
