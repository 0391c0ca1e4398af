"""What does communication cost?"""

from __future__ import annotations

import dataclasses

from stepbench.experiments.collectives import on_ranks
from stepbench.experiments.collectives.cell import Cell
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError
from stepbench.workloads import ranks


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Have the ranks call the operation, after it was seen to give what it should.

    Gloo is given tensors of the CPU, on any machine.

    Raises:
        UnsupportedError: this host has not enough devices or cores, or the payload is no float32 for each rank.
    """
    if cell.backend == "nccl" and setting.device != "cuda":
        raise UnsupportedError(f"nccl needs CUDA devices, got {setting.device}")
    if cell.ranks < 2 or cell.payload_bytes < 4 * cell.ranks:
        raise UnsupportedError(
            f"a collective needs 2 ranks or more and 4 bytes for each, got {cell.ranks} and {cell.payload_bytes}"
        )
    on = setting if cell.backend == "nccl" else dataclasses.replace(setting, device="cpu")
    found = ranks.call(
        on_ranks.timed,
        on,
        ranks=cell.ranks,
        nodes=cell.nodes,
        operation=cell.operation,
        payload_bytes=cell.payload_bytes,
    )
    return Measurement(
        samples=ranks.by_rank(found),
        scalars={"message_bytes": found[0]["scalars"]["payload_bytes"]},
        details=ranks.named(found),
        protocol={"dtype": "fp32", "loops": found[0]["scalars"]["loops"], "tensors_on": on.device},
    )
