"""A projection of the step's time to more ranks: a model, not a measurement, and labelled so wherever it is shown.

Computation is as measured on this machine; communication is a ring on the network that config.yaml states. Every rank
keeps the measured batch, so that work grows with ranks (weak scaling); with tensor parallelism the ranks of a group
share one batch. With S bytes of gradients or parameters, forward, backward and update F, B, U of one rank:

    data parallel     F + max(B, all-reduce(S)) + U
    sharded           F + max(B, reduce-scatter(S)) + U/n + all-gather(S)
    FSDP              max(F, all-gather(S)) + max(B, all-gather(S) + reduce-scatter(S)) + U/n
    tensor parallel   (F + B + U)/n + 4·layers·all-reduce(A), with A the bytes of one activation; nothing hides it
    FSDP × TP         tensor parallel inside a node, FSDP of what is left across nodes

Tensor parallelism divides the heads of attention, so it ends where ranks do not divide them. The scaling efficiency
exceeds 100 % where an update that is sharded (U/n) saves more than communication costs: one rank alone pays all of U.

Source: Rajbhandari et al. 2020 (arXiv:1910.02054), Shoeybi et al. 2019 (arXiv:1909.08053), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from stepbench.experiments.data_parallel.network import Network

STOPS_ABOVE = 0.01  # of the step; below that communication still hides


@dataclass(frozen=True)
class Work:
    """What one rank computes and holds, as measured.

    Attributes:
        forward_s, backward_s, update_s: without communication.
        gradient_bytes: of all gradients, and of all parameters.
        activation_bytes: of one activation `[batch, context, d_model]`.
        layers: of the model.
        heads: of the model, which tensor parallelism divides.
    """

    forward_s: float
    backward_s: float
    update_s: float
    gradient_bytes: float
    activation_bytes: float
    layers: int
    heads: int

    @property
    def compute_s(self) -> float:
        """A step that communicates nothing."""
        return self.forward_s + self.backward_s + self.update_s


@dataclass(frozen=True)
class Step:
    """A projected step: its time, its exposed communication, and how many batches it trains on."""

    seconds: float
    exposed_s: float
    batches: float


def data_parallel(work: Work, network: Network, ranks: int) -> Step:
    """Project the step of data parallelism with overlapped all-reduce."""
    return _hidden(work, ranks, behind_backward=network.ring_s(ranks, work.gradient_bytes))


def sharded(work: Work, network: Network, ranks: int) -> Step:
    """Project the step with the optimizer's state sharded."""
    half = network.half_ring_s(ranks, work.gradient_bytes)
    return _hidden(work, ranks, behind_backward=half, after=half, update_share=1 / ranks)


def fsdp(work: Work, network: Network, ranks: int) -> Step:
    """Project the step of fully sharded data parallelism with perfect prefetch."""
    half = network.half_ring_s(ranks, work.gradient_bytes)
    return _hidden(work, ranks, behind_forward=half, behind_backward=2 * half, update_share=1 / ranks)


def tensor_parallel(work: Work, network: Network, ranks: int) -> Step | None:
    """Project the step with every layer divided over all ranks, which share one batch; None if they cannot be."""
    if work.heads % ranks:
        return None
    exposed = 4 * work.layers * network.ring_s(ranks, work.activation_bytes)
    return Step(work.compute_s / ranks + exposed, exposed, 1.0)


def fsdp_and_tensor_parallel(work: Work, network: Network, ranks: int) -> Step:
    """Project tensor parallelism on as many ranks of a node as divide the heads, and FSDP of each rank's part."""
    inside = math.gcd(math.gcd(ranks, network.ranks_per_node), work.heads)
    groups = ranks // inside
    part = tensor_parallel(work, network, inside)
    assert part is not None  # noqa: S101 - `inside` divides the heads
    # Ranks with the same part of the layers are `groups` apart, on different nodes unless one node holds all.
    half = network.half_ring_s(groups, work.gradient_bytes / inside, across_nodes=ranks > network.ranks_per_node)
    forward = work.forward_s / inside + part.exposed_s / 2
    backward = work.backward_s / inside + part.exposed_s / 2
    hidden = max(0.0, half - forward) + max(0.0, 2 * half - backward)
    update = work.update_s / ranks
    return Step(forward + backward + update + hidden, part.exposed_s + hidden, float(groups))


STRATEGIES: dict[str, Callable[[Work, Network, int], Step | None]] = {
    "data parallel": data_parallel,
    "sharded optimizer": sharded,
    "FSDP": fsdp,
    "tensor parallel": tensor_parallel,
    "FSDP × tensor parallel": fsdp_and_tensor_parallel,
}


def _hidden(
    work: Work,
    ranks: int,
    *,
    behind_forward: float = 0.0,
    behind_backward: float = 0.0,
    after: float = 0.0,
    update_share: float = 1.0,
) -> Step:
    exposed = max(0.0, behind_forward - work.forward_s) + max(0.0, behind_backward - work.backward_s) + after
    computed = work.forward_s + work.backward_s + work.update_s * update_share
    return Step(computed + exposed, exposed, float(ranks))


def efficiency(work: Work, step: Step, ranks: int) -> float:
    """Return the scaling efficiency of a step: tokens/s per rank over those of one rank."""
    return step.batches / step.seconds / ranks * work.compute_s


def stops(step: Step) -> bool:
    """Return whether more of the communication is exposed than counts as hidden."""
    return step.exposed_s > STOPS_ABOVE * step.seconds
