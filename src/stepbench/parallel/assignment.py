"""Which parameters share a bucket."""

from __future__ import annotations

from collections.abc import Hashable, Iterable

from torch.nn import Parameter

MIB = 2**20


def assign(
    parameters: Iterable[Parameter], *, bucket_bytes: float, first_bytes: float | None = None
) -> list[list[Parameter]]:
    """Return buckets of parameters, filled in the given order, each dtype and device for itself.

    A bucket is closed as soon as it holds `bucket_bytes`, so all but the last of each kind hold that much, and none
    holds more than that and one parameter. Buckets come in the order of their last parameters: if gradients appear in
    the given order, that is the order in which buckets become complete.

    Args:
        parameters: in the order in which their gradients are expected.
        bucket_bytes: what closes a bucket.
        first_bytes: what closes the first one of each kind, if that is less.
    """
    place = {parameter: number for number, parameter in enumerate(parameters)}
    buckets: list[list[Parameter]] = []
    filling: dict[Hashable, list[Parameter]] = {}
    filled_bytes: dict[Hashable, int] = {}
    limits: dict[Hashable, float] = {}
    first = bucket_bytes if first_bytes is None else min(first_bytes, bucket_bytes)
    for parameter in place:
        kind = (parameter.dtype, parameter.device)
        filling.setdefault(kind, []).append(parameter)
        filled_bytes[kind] = filled_bytes.get(kind, 0) + parameter.nbytes
        if filled_bytes[kind] >= limits.get(kind, first):
            limits[kind] = bucket_bytes
            buckets.append(filling.pop(kind))
            filled_bytes[kind] = 0
    return sorted([*buckets, *filling.values()], key=lambda bucket: place[bucket[-1]])
