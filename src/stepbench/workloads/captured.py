"""A whole training step as one CUDA graph: forward pass, loss, backward pass and optimizer, replayed by one launch.

Source: torch's documentation, "CUDA semantics", "Whole-network capture".
"""

from __future__ import annotations

import itertools

import torch

from stepbench.workloads.step import Step

EAGER_STEPS = 3  # on another stream before the capture, as torch's documentation asks for


class CapturedStep:
    """A step that runs eagerly at first, is then captured, and replayed from there on.

    The eager steps train as well, so there must be more warm-up steps than `EAGER_STEPS`.

    Args:
        step: built with the implementation `captured`, on CUDA.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._batches = step.batches
        self._graph: torch.cuda.CUDAGraph | None = None
        self._eager = 0

    def run(self) -> None:
        """Run a whole step."""
        if self._eager < EAGER_STEPS:
            self._eager += 1
            self._on_another_stream()
            return
        inputs, targets = next(self._batches)
        if self._graph is None:
            self._capture(inputs, targets)
        assert self._graph is not None  # noqa: S101 - it was captured just now
        self._inputs.copy_(inputs)
        self._targets.copy_(targets)
        self._graph.replay()
        self._step.losses.append(self._loss.clone())

    def start_over(self) -> None:
        """Take the same batches again and without end, once the step has been captured."""
        graphed = self._step.batches
        self._batches = self._step.start_over()
        self._step.batches = graphed

    def _on_another_stream(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._step.run()
        torch.cuda.current_stream().wait_stream(side)

    def _capture(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self._inputs, self._targets = inputs.clone(), targets.clone()
        self._step.batches = itertools.repeat((self._inputs, self._targets))
        self._step.model.zero_grad(set_to_none=True)  # so that gradients are allocated in the graph's own memory
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._step.run()
        self._loss = self._step.losses.pop()  # nothing has computed it yet; each replay writes it
