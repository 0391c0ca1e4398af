"""A small step whose every byte is known, for the two watchers of memory."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

WIDTH = 64
BATCH = 8


class SmallStep:
    """Two linear layers without biases around a ReLU, trained by SGD with momentum."""

    def __init__(self, device: str = "cpu") -> None:
        self.model = nn.Sequential(
            nn.Linear(WIDTH, WIDTH, bias=False, device=device),
            nn.ReLU(),
            nn.Linear(WIDTH, 1, bias=False, device=device),
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9, foreach=False)
        self.inputs = torch.ones(BATCH, WIDTH, device=device)

    @property
    def phases(self) -> Mapping[str, Callable[[], object]]:
        return {"forward": self._forward, "backward": self._backward, "optimizer": self.optimizer.step}

    def prime(self) -> None:
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()

    def owned(self) -> Mapping[str, list[Tensor]]:
        parameters = list(self.model.parameters())
        states = [each for state in self.optimizer.state.values() for each in state.values() if each is not None]
        return {
            "parameters": [*parameters],
            "gradients": [each.grad for each in parameters if each.grad is not None],
            "optimizer_state": states,
        }

    def _forward(self) -> None:
        self.loss = self.model(self.inputs).sum()

    def _backward(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss.backward()


PARAMETER_BYTES = 4 * (WIDTH * WIDTH + WIDTH)
# The first layer's output is freed when the ReLU has made its own, which both the ReLU and the second layer keep; the
# scalar loss stays.
ACTIVATION_BYTES = 4 * BATCH * WIDTH + 4
