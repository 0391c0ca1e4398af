"""What two ranks check about the table of strategies."""

from __future__ import annotations

import contextlib
import copy
import warnings

import torch
from tests.parallel.data_parallel_on_ranks import batch, raises
from torch import distributed as dist
from torch import nn
from torch.nn import functional as F

from stepbench.parallel.names import STRATEGIES
from stepbench.parallel.replica import Replica
from stepbench.parallel.strategies import parallelize


def module() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 8), nn.Sequential(nn.Tanh(), nn.Linear(8, 8)), nn.Tanh(), nn.Linear(8, 2)
    ).double()


def train(replica: Replica, steps: int, passes: int = 1) -> None:
    for step in range(steps):
        replica.optimizer.zero_grad()
        for number in range(passes):
            with replica.no_sync() if number < passes - 1 else contextlib.nullcontext():
                x = batch(100 * step + 10 * number + dist.get_rank())
                (F.silu(replica.module(x)).square().mean() / passes).backward()
        replica.finish_gradient_synchronization()
        replica.optimizer.step()


def expected(steps: int, passes: int) -> dict[str, torch.Tensor]:
    single = module()
    optimizer = torch.optim.AdamW(single.parameters(), lr=0.01)
    for step in range(steps):
        optimizer.zero_grad()
        for number in range(passes):
            for rank in range(2):
                x = batch(100 * step + 10 * number + rank)
                (F.silu(single(x)).square().mean() / passes / 2).backward()
        optimizer.step()
    return {name: each.detach() for name, each in single.named_parameters()}


def check_every_strategy_equals_one_process_torchs_own_too() -> None:
    for passes in (1, 3):
        single = expected(3, passes)
        for name in STRATEGIES:
            mine = module()
            if dist.get_rank() == 1:
                with torch.no_grad():
                    mine[0].weight.add_(1)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's own, about torch's own
                replica = parallelize(name, mine, torch.optim.AdamW, {"lr": 0.01})
                train(replica, 3, passes)
                found = replica.full_parameters()
            assert found.keys() == single.keys(), name
            differs = max((found[key] - single[key]).abs().max().item() for key in single)
            assert (differs > 1e-4) if name == "none" else (differs < 1e-12), (name, passes, differs)


def check_gradients_are_clipped_by_the_norm_of_the_whole() -> None:
    for norm_type in (2.0, float("inf")):
        single = module()
        for rank in range(2):
            (F.silu(single(batch(rank))).square().mean() / 2).backward()
        right = torch.nn.utils.clip_grad_norm_(single.parameters(), 1e-3, norm_type)
        torch.optim.SGD(single.parameters(), lr=100.0).step()
        for name in (each for each in STRATEGIES if each != "none"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                replica = parallelize(name, module(), torch.optim.SGD, {"lr": 100.0})
                F.silu(replica.module(batch(dist.get_rank()))).square().mean().backward()
                replica.finish_gradient_synchronization()
                norm = replica.clip_grad_norm(1e-3, norm_type)
                replica.optimizer.step()
                found = replica.full_parameters()
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
            assert torch.allclose(norm, right, rtol=1e-9), name
            for key, each in single.named_parameters():
                assert torch.allclose(found[key], each, rtol=1e-6), name


def check_ours_have_counters_and_torchs_have_none() -> None:
    for name in STRATEGIES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            replica = parallelize(name, module(), torch.optim.AdamW, {"lr": 0.01})
            for traffic in replica.traffic:
                traffic.reset()
            train(replica, 1)
        counts = [traffic.calls for traffic in replica.traffic]
        if name in ("torch_ddp", "torch_fsdp2"):
            assert counts == []
        elif name == "none":
            assert counts == [0]
        else:
            assert sum(counts) > 0, name
            assert sum(traffic.wait_s() for traffic in replica.traffic) > 0


def check_options_reach_the_strategy() -> None:
    low = parallelize("fsdp", module().float(), torch.optim.SGD, {"lr": 1}, compute_dtype=torch.bfloat16, prefetch=0)
    assert low.module(batch().float()).dtype == torch.bfloat16
    torchs = parallelize("torch_fsdp2", module().float(), torch.optim.SGD, {"lr": 1}, compute_dtype=torch.bfloat16)
    assert torchs.module(batch().float()).dtype == torch.bfloat16
    many = parallelize("bucketed", module(), torch.optim.SGD, {"lr": 1}, bucket_mib=1e-6)
    assert len(many.module.buckets) == len(list(module().parameters()))


def check_what_is_unknown_is_refused_with_what_is_known() -> None:
    with raises(ValueError, f"`name` must be one of {', '.join(STRATEGIES)}, got 'ddp'"):
        parallelize("ddp", module(), torch.optim.SGD)
    with raises(ValueError, "`options` of fsdp must be among compute_dtype, prefetch, sharded, got bucket_mib"):
        parallelize("fsdp", module(), torch.optim.SGD, bucket_mib=1)
    with raises(ValueError, "`options` of naive must be among none, got prefetch"):
        parallelize("naive", module(), torch.optim.SGD, prefetch=1)


def check_a_replica_is_left_as_it_was_found() -> None:
    """`no_sync` ends with its block, also for torch's FSDP, where it is a switch."""
    for name in ("bucketed", "sharded_reduce_scatter", "fsdp", "torch_ddp", "torch_fsdp2"):
        replica = parallelize(name, copy.deepcopy(module()), torch.optim.SGD, {"lr": 0.1})
        with raises(ZeroDivisionError, "division"), replica.no_sync():
            _ = 1 / 0
        train(replica, 2)
        everyones = [None, None]
        dist.all_gather_object(everyones, {key: each.tolist() for key, each in replica.full_parameters().items()})
        assert everyones[0] == everyones[1], name
