"""What two ranks check about the data-parallel strategies."""

from __future__ import annotations

import contextlib
import copy
import gc
import re
import time
import weakref
from collections.abc import Callable, Iterator

import pytest
import torch
from tests.parallel.sample_modules import ManyDtypes, Tangle, language_loss, tokens
from torch import Tensor, nn
from torch import distributed as dist

from stepbench.parallel.bucketed import BucketedDDP
from stepbench.parallel.data_parallel import DataParallel
from stepbench.parallel.flat import FlatDDP
from stepbench.parallel.naive import NaiveDDP
from stepbench.parallel.overlapped import OverlappedDDP


def bucketed(module: nn.Module, **more: object) -> BucketedDDP:
    return BucketedDDP(module, bucket_mib=1e-4, **more)


SYNCHRONISING: list[Callable[..., DataParallel]] = [NaiveDDP, FlatDDP, OverlappedDDP, bucketed]


def layers() -> nn.Module:
    """Return a module all of whose parameters always have a gradient."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 2)).double()


def batch(rank: int | None = None) -> Tensor:
    seed = dist.get_rank() if rank is None else rank
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def backward(wrapped: nn.Module) -> None:
    wrapped(batch()).square().mean().backward()


@contextlib.contextmanager
def raises(kind: type[Exception], text: str) -> Iterator[None]:
    """Assert that the block raises an error with this text in its message."""
    with pytest.raises(kind, match=re.escape(text)):
        yield


def check_replicas_start_as_rank_0() -> None:
    """Parameters and buffers of any dtype and layout."""
    for wrap in (DataParallel, *SYNCHRONISING):
        module = layers()
        module.strided = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
        module.empty = nn.Parameter(torch.empty(0, 3))
        module.register_buffer("flags", torch.tensor([True, False, True]))
        module.register_buffer("count", torch.tensor(7))
        module.register_buffer("low", torch.ones(3, dtype=torch.bfloat16))
        expected = {name: each.clone() for name, each in module.state_dict().items()}
        if dist.get_rank() == 1:
            with torch.no_grad():
                for each in (*module.parameters(), *module.buffers()):
                    each.copy_(each.logical_not() if each.dtype == torch.bool else each + 3)
        wrap(module)
        for name, each in module.state_dict().items():
            assert torch.equal(each, expected[name]), name


def check_different_modules_are_refused_on_every_rank() -> None:
    """To go on would be to hang, or to mix up what belongs to different parameters."""
    for change in ("shape", "dtype", "frozen", "name"):
        module = layers()
        if dist.get_rank() == 1:
            if change == "shape":
                module[4] = nn.Linear(5, 3).double()
            elif change == "dtype":
                module[4].float()
            elif change == "frozen":
                module[4].bias.requires_grad_(False)
            else:
                module = nn.ModuleDict({"inner": module})
        with raises(ValueError, "`module` must have the same parameters on every rank, got others on rank 1 than on 0"):
            DataParallel(module)


def check_modules_that_cannot_be_wrapped() -> None:
    with raises(ValueError, "`module` must have parameters, all on one device, got no parameters"):
        DataParallel(nn.Tanh())
    with raises(ValueError, "got cpu, meta"):
        DataParallel(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta")))
    for size in (0, -1, float("nan")):
        with raises(ValueError, f"`bucket_mib` must be positive, got {size}"):
            BucketedDDP(layers(), bucket_mib=size)


def check_messages_are_counted() -> None:
    """One for each parameter, one for all, one for each bucket; and one small one where flags travel by themselves."""
    parameters = list(layers().parameters())
    gradient_bytes = sum(each.nbytes for each in parameters)
    for wrap, calls, extra_bytes in (
        (NaiveDDP, len(parameters) + 1, 4 * len(parameters)),
        (FlatDDP, 1, 8 * len(parameters)),
        (OverlappedDDP, len(parameters) + 1, 4 * len(parameters)),
    ):
        wrapped = wrap(layers())
        wrapped.traffic.reset()
        backward(wrapped)
        wrapped.finish_gradient_synchronization()
        assert (wrapped.traffic.calls, wrapped.traffic.payload_bytes) == (calls, gradient_bytes + extra_bytes), wrap
    wrapped = bucketed(layers())
    assert len(wrapped.buckets) == 3
    wrapped.traffic.reset()
    backward(wrapped)
    wrapped.finish_gradient_synchronization()
    assert wrapped.traffic.calls == 3
    assert wrapped.traffic.payload_bytes == sum(bucket._buffer.nbytes for bucket in wrapped.buckets) >= gradient_bytes
    several = FlatDDP(ManyDtypes())
    several.traffic.reset()
    several(batch().repeat(1, 2)[:, :5]).square().mean().backward()
    several.finish_gradient_synchronization()
    assert several.traffic.calls == 3  # dtypes


def check_who_communicates_during_the_backward_pass() -> None:
    for wrap, during in ((NaiveDDP, 0), (FlatDDP, 0), (OverlappedDDP, 6), (bucketed, 3)):
        wrapped = wrap(layers())
        wrapped.traffic.reset()
        backward(wrapped)
        assert wrapped.traffic.calls == during, (wrap, wrapped.traffic.calls)
        wrapped.finish_gradient_synchronization()


def check_waits_and_transfers_are_measured() -> None:
    """Rank 1 comes 0.2 s after rank 0 begins to wait; rank 0 waits that long, and its transfers take as long."""
    beside = dist.new_group()
    for wrap in SYNCHRONISING:
        wrapped = wrap(layers())
        backward(wrapped)
        wrapped.finish_gradient_synchronization()
        dist.barrier()
        wrapped.traffic.reset()
        assert (wrapped.traffic.calls, wrapped.traffic.payload_bytes, wrapped.traffic.wait_s()) == (0, 0, 0.0)
        assert wrapped.traffic.transfers == []
        if dist.get_rank() == 1:
            dist.barrier(beside)
            time.sleep(0.2)
        backward(wrapped)
        if dist.get_rank() == 0:
            dist.barrier(beside)
        wrapped.finish_gradient_synchronization()
        traffic = wrapped.traffic
        assert len(traffic.transfers) == traffic.calls
        assert all(each.end_s is not None and each.end_s >= each.start_s >= 0 for each in traffic.transfers)
        assert {each.operation for each in traffic.transfers} == {"all_reduce"}
        assert traffic.wait_s("all_reduce") == traffic.wait_s()
        assert traffic.wait_s("broadcast") == traffic.busy_s("broadcast") == 0
        if dist.get_rank() == 0:
            assert traffic.wait_s() > 0.1, (wrap, traffic.wait_s())
            assert traffic.busy_s() > 0.1, (wrap, traffic.busy_s())


def check_gradients_are_views_into_the_buckets() -> None:
    wrapped = bucketed(layers())
    for _ in range(2):
        wrapped.zero_grad(set_to_none=True)
        backward(wrapped)
        wrapped.finish_gradient_synchronization()
        for bucket in wrapped.buckets:
            storages = {each.grad.untyped_storage().data_ptr() for each in bucket.parameters}
            assert len(storages) == 1
            for each in bucket.parameters:
                assert each.grad.shape == each.shape
                assert each.grad.data_ptr() % 64 == 0


def check_gradients_keep_the_layout_of_their_parameters() -> None:
    convolution = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
    wrapped = bucketed(convolution)
    image = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(dist.get_rank()))
    wrapped(image).square().mean().backward()
    expected = convolution.weight.grad.clone()
    wrapped.finish_gradient_synchronization()
    assert convolution.weight.grad.stride() == convolution.weight.stride() != expected.contiguous().stride()
    for wrap in (NaiveDDP, FlatDDP, OverlappedDDP):
        other = nn.Conv2d(3, 4, 2).to(memory_format=torch.channels_last)
        other.load_state_dict(convolution.state_dict())
        again = wrap(other)
        again(image).square().mean().backward()
        again.finish_gradient_synchronization()
        assert torch.equal(other.weight.grad, convolution.weight.grad), wrap


def check_no_sync_sends_nothing_and_is_left_after_an_error() -> None:
    for wrap in SYNCHRONISING:
        wrapped = wrap(layers())
        wrapped.traffic.reset()
        with wrapped.no_sync():
            backward(wrapped)
            with raises(RuntimeError, "must be called outside no_sync()"):
                wrapped.finish_gradient_synchronization()
        with raises(ZeroDivisionError, "division"), wrapped.no_sync():
            _ = 1 / 0
        assert wrapped.traffic.calls == 0
        backward(wrapped)
        wrapped.finish_gradient_synchronization()
        assert wrapped.traffic.calls > 0


def check_accumulation_over_steps_that_nobody_zeroes() -> None:
    """Gradients that are kept add up as in one process, although they were averaged in between."""
    for wrap in SYNCHRONISING:
        wrapped, single = wrap(layers()), layers()
        for _ in range(3):
            backward(wrapped)
            wrapped.finish_gradient_synchronization()
            for rank in range(2):
                (single(batch(rank)).square().mean() / 2).backward()
        for mine, one in zip(wrapped.parameters(), single.parameters(), strict=True):
            assert torch.allclose(mine.grad, one.grad, rtol=1e-13, atol=0), wrap


def check_a_second_backward_pass_is_refused() -> None:
    """The bucket is on its way; to add to it now would corrupt it without a word."""
    for wrap in (OverlappedDDP, bucketed):
        wrapped = wrap(layers())
        backward(wrapped)
        with raises(RuntimeError, "finish_gradient_synchronization() must be called before the next backward pass"):
            backward(wrapped)
        wrapped.finish_gradient_synchronization()


def check_a_parameter_that_is_unfrozen_later_is_refused() -> None:
    for wrap in (DataParallel, *SYNCHRONISING):
        module = layers()
        module[0].weight.requires_grad_(False)
        wrapped = wrap(module)
        module[0].weight.requires_grad_(True)
        with raises(RuntimeError, "`0.weight` must be unfrozen before the module is wrapped"):
            wrapped.finish_gradient_synchronization()


def check_sparse_gradients_are_refused() -> None:
    for wrap in SYNCHRONISING:
        wrapped = wrap(nn.Embedding(5, 3, sparse=True))
        with raises(ValueError, "a gradient must be dense to be averaged over the ranks, got torch.sparse_coo"):
            wrapped(torch.tensor([1, 2])).sum().backward()
            wrapped.finish_gradient_synchronization()


def check_a_module_that_is_converted_later_is_refused() -> None:
    wrapped = bucketed(layers())
    wrapped.float()
    with raises(ValueError, "a module must be converted before it is wrapped, got torch.float32 for torch.float64"):
        wrapped(batch().float()).sum().backward()


def check_complex_parameters_of_which_some_have_no_gradient() -> None:
    """The flags that say so are complex as well where they travel with the gradients."""
    for wrap in SYNCHRONISING:
        torch.manual_seed(0)
        names = ["used", "never", "on_rank_1"]
        module = nn.ParameterDict({name: torch.randn(3, dtype=torch.complex64) for name in names})
        wrapped = wrap(module)
        used = [module["used"], *([module["on_rank_1"]] if dist.get_rank() else [])]
        sum((dist.get_rank() + 1) * each.abs().square().sum() for each in used).backward()
        wrapped.finish_gradient_synchronization()
        assert torch.allclose(module["used"].grad, 3 * module["used"]), wrap
        assert torch.allclose(module["on_rank_1"].grad, 2 * module["on_rank_1"]), wrap
        assert module["never"].grad is None, wrap


def check_modules_without_anything_to_train() -> None:
    for wrap in (DataParallel, *SYNCHRONISING):
        wrapped = wrap(layers().requires_grad_(False))
        with torch.no_grad():
            wrapped(batch())
        wrapped.finish_gradient_synchronization()


def check_a_step_without_a_backward_pass() -> None:
    for wrap in SYNCHRONISING:
        wrapped = wrap(layers())
        wrapped.finish_gradient_synchronization()
        assert all(each.grad is None for each in wrapped.parameters())
        backward(wrapped)
        wrapped.finish_gradient_synchronization()
        assert all(each.grad is not None for each in wrapped.parameters())


def check_the_mean_of_large_half_precision_gradients_is_finite() -> None:
    """Their sum is not: 2 · 60 000 is more than float16 holds."""
    for wrap in SYNCHRONISING:
        module = nn.Linear(1, 1, bias=False).half()
        wrapped = wrap(module)
        wrapped(torch.full((1, 1), 60_000.0, dtype=torch.float16)).sum().backward()
        wrapped.finish_gradient_synchronization()
        assert module.weight.grad.item() == 60_000, wrap


def check_evaluation_and_keyword_arguments_pass_through() -> None:
    x, y = tokens(steps=1, batch=2)
    for wrap in SYNCHRONISING:
        module = Tangle()
        expected = language_loss(module, x[0], y[0], use_sometimes=False)
        dist.broadcast(expected.detach(), 0)
        wrapped = wrap(module).eval()
        with torch.no_grad():
            assert language_loss(wrapped, x[0], y[0], use_sometimes=False).isfinite()
        assert not module.training


def check_a_wrapper_is_freed_with_its_last_reference() -> None:
    """A tensor's hooks are invisible to the garbage collector; a cycle through one would keep the buckets for good."""
    for wrap in SYNCHRONISING:
        module = layers()
        wrapped = wrap(module)
        backward(wrapped)
        wrapped.finish_gradient_synchronization()
        weak = weakref.ref(wrapped)
        del wrapped
        gc.collect()
        assert weak() is None, wrap
        backward(module)  # the hooks that are left do nothing
        weak = weakref.ref(module)
        del module
        gc.collect()
        assert weak() is None, wrap


def check_ranks_of_a_group_do_not_touch_the_others() -> None:
    """Each rank is alone in its group: nothing is averaged, and nothing waits."""
    alone = [dist.new_group([rank]) for rank in range(dist.get_world_size())][dist.get_rank()]
    for wrap in SYNCHRONISING:
        module = layers()
        with torch.no_grad():
            module[0].weight.add_(dist.get_rank())
        expected = copy.deepcopy(module)
        wrapped = wrap(module, group=alone)
        assert torch.equal(module[0].weight, expected[0].weight)
        backward(wrapped)
        wrapped.finish_gradient_synchronization()
        backward(expected)
        for mine, other in zip(module.parameters(), expected.parameters(), strict=True):
            assert torch.equal(mine.grad, other.grad), wrap
