"""The state of a sharded optimizer as one whole, in the format of the unsharded one, and back.

What is saved does not know how many ranks there were: it can be loaded on another number, or into the optimizer that
was sharded, in a single process.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import Parameter

from stepbench.parallel.communicator import Communicator
from stepbench.parallel.pieces import Piece

State = dict[str, Any]


@torch.no_grad()
def gather(
    pieces: Sequence[Piece], state: Mapping[Any, State], communicator: Communicator, to: int | None
) -> dict[Parameter, State]:
    """Return the state of each whole parameter, on the CPU; a collective.

    Args:
        pieces: of all ranks.
        state: of this rank's local pieces.
        communicator: the ranks.
        to: the rank that gets it, or None for all; the others get an empty dict.
    """
    described = [_describe(piece, state) for piece in pieces]
    everyones: list[Any] = [None] * communicator.size
    dist.all_gather_object(everyones, described, group=communicator.group)
    wanted = to is None or to == communicator.rank
    whole: dict[Parameter, State] = {}
    parts: dict[tuple[Parameter, str], list[Tensor]] = {}
    for number, piece in enumerate(pieces):
        for key, value in (everyones[piece.owner][number] or {}).items():
            if not isinstance(value, torch.dtype):
                if wanted:
                    whole.setdefault(piece.parameter, {}).setdefault(key, value)
                continue
            local = state[piece.local][key] if piece.local is not None else None
            part = _receive(piece, local, value, communicator)
            if wanted:
                whole.setdefault(piece.parameter, {})[key] = None  # its place among the keys
                parts.setdefault((piece.parameter, key), []).append(part.to("cpu", copy=True))
    for (parameter, key), found in parts.items():
        whole[parameter][key] = torch.cat(found).view(parameter.shape)
    return whole


def cut(piece: Piece, whole: Mapping[Parameter, State | None]) -> State:
    """Return the part of a whole parameter's state that belongs to a local piece of it; empty if it has none.

    It is copied: a view would keep the whole alive, and the optimizer would write into what was loaded.
    """
    shape = (piece.local if piece.local is not None else piece.parameter).shape
    return {
        key: value.reshape(-1)[piece.start : piece.stop].reshape(shape).clone()
        if _follows(key, value, piece.parameter)
        else copy.deepcopy(value)
        for key, value in (whole[piece.parameter] or {}).items()
    }


def _describe(piece: Piece, state: Mapping[Any, State]) -> State | None:
    """Return a piece's state with a dtype in the place of each tensor that is as large as the piece."""
    if piece.local is None or piece.local not in state:
        return None
    return {
        key: value.dtype
        if _follows(key, value, piece.local)
        else (value.cpu() if isinstance(value, Tensor) else copy.deepcopy(value))
        for key, value in state[piece.local].items()
    }


def _follows(key: str, value: Any, parameter: Tensor) -> bool:
    """Whether a state has one number for each element; `step`, a count, has the shape of a parameter without dims."""
    return isinstance(value, Tensor) and value.shape == parameter.shape and key != "step"


def _receive(piece: Piece, local: Tensor | None, dtype: torch.dtype, communicator: Communicator) -> Tensor:
    """Return the owner's tensor `[stop - start]`, on every rank."""
    device = communicator.traffic.device
    if local is None:
        tensor = torch.empty(piece.stop - piece.start, dtype=dtype, device=device)
    else:
        tensor = local.detach().reshape(-1).to(device).contiguous()
    if tensor.numel():
        communicator.broadcast(tensor, root=piece.owner).wait()
    return tensor
