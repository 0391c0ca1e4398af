"""What autograd keeps, by operation, against torch's own hooks for what is saved."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stepbench.measure import saved_tensors


def test_each_operation_keeps_what_its_gradient_needs() -> None:
    x = torch.ones(4, 8, requires_grad=True)
    weight = torch.ones(8, 8, requires_grad=True)
    output = (x @ weight).softmax(-1).exp() + 1
    found = {each.operation: each for each in saved_tensors.by_operation(output, without=[weight])}
    assert list(found) == ["Mm", "Softmax", "Exp", "Add"]
    assert found["Mm"].saved_bytes == x.nbytes
    assert found["Softmax"].saved_bytes == found["Exp"].saved_bytes == 4 * 8 * 4
    assert found["Add"] == saved_tensors.Saved("Add", 1, 0)


def test_a_storage_counts_once_with_the_first_that_keeps_it() -> None:
    x = torch.ones(16, requires_grad=True)
    y = x.exp()
    found = saved_tensors.by_operation(y * y + F.silu(y), without=[])
    assert [(each.operation, each.calls, each.saved_bytes) for each in found] == [
        ("Exp", 1, 64),
        ("Mul", 1, 0),
        ("Silu", 1, 0),
        ("Add", 1, 0),
    ]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x.clone())
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad


def test_a_function_of_ones_own_is_looked_into() -> None:
    output = Doubled.apply(torch.ones(16, requires_grad=True))
    assert [each.saved_bytes for each in saved_tensors.by_operation(output, without=[])] == [64]


def test_the_sum_is_what_torchs_hooks_see() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, dropout=0.0)
    inputs = torch.randn(2, 5, 16, requires_grad=True)
    storages: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layer(inputs)
    output = layer(inputs)
    found = saved_tensors.by_operation(output, without=list(layer.parameters()))
    assert sum(each.saved_bytes for each in found) == sum(storages.values())
