"""Cells on several ranks that cannot be measured: what is refused, and what is told of a rank that fails."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from tests.experiments import failing_on_ranks

from stepbench.experiments.collectives import measure as collectives
from stepbench.experiments.collectives import on_ranks
from stepbench.experiments.collectives.cell import Cell as Collectives
from stepbench.experiments.data_parallel import measure as data_parallel
from stepbench.experiments.data_parallel.cell import Cell as DataParallel
from stepbench.experiments.fsdp import measure as fsdp
from stepbench.experiments.fsdp.cell import Cell as Fsdp
from stepbench.experiments.optimizer_sharding import measure as optimizer_sharding
from stepbench.experiments.optimizer_sharding.cell import Cell as OptimizerSharding
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.models.sizes import ModelSize
from stepbench.parallel import team
from stepbench.parallel.launch import where
from stepbench.parallel.outcome import ERROR, RankError, RankOutcome
from stepbench.process import failures as failures_
from stepbench.workloads import rank_step, ranks, step, training
from stepbench.workloads.spec import StepSpec

SETTING = Setting(
    device="cpu",
    protocol={"warmup_steps": 1, "measured_steps": 2, "seed": 0, "threads": 2},
    definition={"vocabulary": 20, "size": {"d_model": 32, "d_ff": 64, "layers": 3, "heads": 2}},
)
SPEC = StepSpec(ModelSize(**SETTING.definition["size"]), 20, context=16, batch=2, strategy="naive", ranks=2)
GENEROUS_S = 200.0


# -- what is refused before a rank is started --------------------------------------------------------------------------


@pytest.fixture
def _no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    def launched(*_: Any, **__: Any) -> None:
        raise AssertionError("ranks were started")

    monkeypatch.setattr(team, "launch", launched)


def trained(strategy: str, **more: Any) -> DataParallel:
    return DataParallel("tiny", strategy, context=16, **more)  # type: ignore[arg-type]


def sharded(**more: Any) -> OptimizerSharding:
    return OptimizerSharding("measured", "tiny", "sharded_broadcast", context=16, **more)


def fully_sharded(variant: str, **more: Any) -> Fsdp:
    return Fsdp(**{"source": "measured", "size": "tiny", "variant": variant, "context": 16, **more})


@pytest.mark.usefixtures("_no_launch")
@pytest.mark.parametrize(
    ("module", "cell", "device", "reason"),
    [
        (data_parallel, trained("naive", ranks=3), "cpu", "3 ranks need a core each, got `protocol.threads` 2"),
        (optimizer_sharding, sharded(ranks=3), "cpu", "3 ranks need a core each, got `protocol.threads` 2"),
        (fsdp, fully_sharded("ddp", ranks=8), "cpu", "8 ranks need a core each, got `protocol.threads` 2"),
        (
            collectives,
            Collectives("broadcast", "gloo", 4, 4096),
            "mps",
            "4 ranks need a core each, got `protocol.threads` 2",
        ),
        (data_parallel, trained("naive"), "cuda", "2 ranks need 2 GPUs, got 0"),
        (collectives, Collectives("broadcast", "nccl", 2, 4096), "cuda", "2 ranks need 2 GPUs, got 0"),
        (collectives, Collectives("broadcast", "nccl", 2, 4096), "cpu", "nccl needs CUDA devices, got cpu"),
        (collectives, Collectives("broadcast", "nccl", 2, 4096), "mps", "nccl needs CUDA devices, got mps"),
        (fsdp, fully_sharded("fsdp"), "mps", "ranks need the device cuda or cpu, got mps"),
        (
            data_parallel,
            trained("naive", precision="tf32"),
            "cpu",
            "tf32 needs a CUDA device of compute capability 8.0 or later, got cpu",
        ),
        (
            optimizer_sharding,
            sharded(parameter_dtype="bf16"),
            "cpu",
            "parameters in bf16 need the precision bf16, got fp32",
        ),
        (
            data_parallel,
            trained("naive", bucket_mib=25),
            "cpu",
            "`bucket_mib` must be none for naive, which has none, got 25",
        ),
        (
            data_parallel,
            trained("torch_ddp", bucket_mib=0),
            "cpu",
            "`bucket_mib` must be none or at least 1, got 0",
        ),
        (fsdp, fully_sharded("ddp", prefetch=1), "cpu", "`prefetch` must be none for bucketed, which has none, got 1"),
        (
            fsdp,
            fully_sharded("torch_fsdp2", prefetch=0, source="predicted"),
            "cpu",
            "`prefetch` must be none for torch_fsdp2, which has none, got 0",
        ),
        (
            collectives,
            Collectives("all_reduce", "gloo", 2, 7),
            "cpu",
            "a collective needs 2 ranks or more and 4 bytes for each, got 2 and 7",
        ),
        (
            collectives,
            Collectives("all_reduce", "gloo", 1, 4096),
            "cpu",
            "a collective needs 2 ranks or more and 4 bytes for each, got 1 and 4096",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_this_host_or_strategy_cannot_do_is_unsupported(
    monkeypatch: pytest.MonkeyPatch, module: Any, cell: Any, device: str, reason: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UnsupportedError) as refusal:
        module.measure(cell, dataclasses.replace(SETTING, device=device))
    assert str(refusal.value) == reason


def test_ranks_need_a_device_that_they_can_talk_from() -> None:
    with pytest.raises(UnsupportedError, match=r"^ranks need the device cuda or cpu, got mps$"):
        ranks.threads_per_rank(dataclasses.replace(SETTING, device="mps"), 2)


# -- what a launch is given --------------------------------------------------------------------------------------------


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the launcher was asked for, in whose place nothing happens."""
    asked: dict[str, Any] = {}

    def launched(function: Callable[..., Any], ranks: int, **more: Any) -> list[Any]:
        asked.update(more, function=function, ranks=ranks)
        return []

    monkeypatch.setattr(team, "launch", launched)
    return asked


def test_a_call_divides_the_threads_and_has_no_deadline_of_its_own(order: dict[str, Any]) -> None:
    setting = dataclasses.replace(SETTING, protocol=SETTING.protocol | {"threads": 7})
    assert ranks.call(failing_on_ranks.misbehave, setting, ranks=3, how="unsupported") == []
    assert order == {
        "function": ranks.kept_to_device,
        "ranks": 3,
        "arguments": {
            "setting": setting.plain(),
            "function": where(failing_on_ranks.misbehave),
            "arguments": {"how": "unsupported"},
        },
        "backend": "gloo",
        "deadline_s": ranks.UNLIMITED_S - ranks.MARGIN_S,
        "threads": 2,
        "nodes": None,
        "fork": False,
    }


@pytest.mark.parametrize(("device", "fork"), [("cpu", True), ("cuda", False)])
def test_ranks_begin_as_copies_of_a_process_that_allows_it_but_not_on_cuda(
    order: dict[str, Any], monkeypatch: pytest.MonkeyPatch, device: str, fork: bool
) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    setting = dataclasses.replace(SETTING, device=device, may_fork=True)
    ranks.call(failing_on_ranks.misbehave, setting, ranks=2, how="unsupported")
    assert order["fork"] is fork


def test_on_cuda_each_rank_has_a_device_and_a_thread(order: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 4)
    ranks.call(failing_on_ranks.misbehave, dataclasses.replace(SETTING, device="cuda"), ranks=4, how="unsupported")
    assert (order["backend"], order["threads"]) == ("nccl", 1)


def test_ranks_are_given_less_time_than_the_measuring_process(order: dict[str, Any]) -> None:
    for left_s, most_s in ((100.0, 100.0 - ranks.MARGIN_S), (-100.0, 1.0)):
        setting = dataclasses.replace(SETTING, deadline=time.monotonic() + left_s)
        ranks.call(failing_on_ranks.misbehave, setting, ranks=2, how="unsupported")
        assert 1.0 <= order["deadline_s"] <= most_s


def test_what_ranks_return_is_put_together_by_name() -> None:
    found = [{"samples": {"step_s": [1.0], "loss_nats": [2.0]}}, {"samples": {"step_s": [3.0], "loss_nats": [4.0]}}]
    assert ranks.by_rank(found) == {"step_s": [[1.0], [3.0]], "loss_nats": [[2.0], [4.0]]}


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        ({}, {}),
        ({"bucket_mib": 5}, {"bucket_mib": 5}),
        ({"compute_dtype": "bf16", "prefetch": 0}, {"compute_dtype": torch.bfloat16, "prefetch": 0}),
        ({"compute_dtype": "fp32", "prefetch": None}, {}),
    ],
)
def test_options_that_json_can_hold_become_the_strategys(options: dict[str, Any], arguments: dict[str, Any]) -> None:
    spec = dataclasses.replace(SPEC, strategy="fsdp", **options)
    assert rank_step._options(StepSpec.of_plain(json.loads(json.dumps(spec.plain())))) == arguments


@pytest.mark.parametrize(
    ("module", "cell", "what", "beside"),
    [
        (data_parallel, trained("bucketed", bucket_mib=5), ("bucketed", {"bucket_mib": 5}), "torch_ddp"),
        (data_parallel, trained("overlapped"), ("overlapped", {}), None),
        (optimizer_sharding, sharded(), ("sharded_broadcast", {}), "torch_zero"),
        (fsdp, fully_sharded("ddp", compute_dtype="bf16"), ("bucketed", {}), None),
        (
            fsdp,
            fully_sharded("fsdp", compute_dtype="bf16", prefetch=2),
            ("fsdp", {"compute_dtype": "bf16", "prefetch": 2}),
            "torch_fsdp2",
        ),
    ],
    ids=["bucketed", "overlapped", "sharded", "ddp", "fsdp"],
)
def test_a_cells_options_reach_its_ranks(
    monkeypatch: pytest.MonkeyPatch, module: Any, cell: Any, what: tuple[str, dict[str, Any]], beside: str | None
) -> None:
    asked: list[Any] = []

    def called(_: Any, __: Setting, *, spec: Any, beside: Any, **___: Any) -> list[Any]:
        asked.extend(each and StepSpec.of_plain(each) for each in (spec, beside))
        raise InterruptedError

    monkeypatch.setattr(training.ranks, "call", called)
    monkeypatch.setattr(training.ranks, "threads_per_rank", lambda *_: 1)
    monkeypatch.setattr(training.rank_step, "check_fit", lambda *_: None)
    with pytest.raises(InterruptedError):
        module.measure(cell, SETTING)
    own, other = asked
    assert (own.strategy, {name: getattr(own, name) for name in what[1]}) == what
    assert (own.context, own.batch, own.ranks) == (16, 4, 2)
    # DDP knows no dtype of its own and computes in autocast.
    assert own.precision == ("bf16" if getattr(cell, "variant", None) == "ddp" else "fp32")
    assert (other.strategy if other else None) == beside
    if other:
        assert other == dataclasses.replace(own, strategy=beside, prefetch=None)


def test_each_rank_has_data_of_its_own_and_the_same_each_time() -> None:
    def first(rank: int) -> torch.Tensor:
        return next(step.feed(SPEC, SETTING, rank=rank))[0]

    assert first(0).shape == (2, 16)
    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(0), first(1))


# -- what is told of a rank that fails ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def failures() -> dict[str, Exception]:
    """How a call ended with each fault; what else may go wrong is measured by a run (tests/workflow/test_ranks.py)."""

    def fail(how: str) -> Exception:
        setting = dataclasses.replace(SETTING, deadline=time.monotonic() + GENEROUS_S)
        with pytest.raises((UnsupportedError, RankError)) as caught:
            ranks.call(failing_on_ranks.misbehave, setting, ranks=2, how=how)
        return caught.value

    cases = ["unsupported", "out of memory"]
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(cases, pool.map(fail, cases), strict=True))


def notes(error: Exception) -> str:
    return "\n".join(error.__notes__)


def test_what_a_rank_cannot_do_is_unsupported_in_its_own_words(failures: dict[str, Exception]) -> None:
    error = failures["unsupported"]
    assert type(error) is UnsupportedError
    assert str(error) == "a rank needs a unit: it has none"
    assert notes(error).startswith("rank 1:\nTraceback")
    assert "in fault\n" in notes(error)


def test_a_rank_without_memory_is_named(failures: dict[str, Exception]) -> None:
    error = failures["out of memory"]
    assert type(error) is RankError
    assert (error.kind, error.rank) == ("oom", 1)
    assert str(error) == "rank 1 raised OutOfMemoryError: CUDA out of memory. Tried to allocate 1024.00 GiB"
    assert "in fault\n" in notes(error)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("oom", "oom"),
        ("wrong_result", "wrong_result"),
        ("unsupported", "unsupported"),
        ("exception", "rank_failed"),
        (None, "rank_failed"),
    ],
)
def test_a_failure_has_the_kind_that_its_record_gets(
    monkeypatch: pytest.MonkeyPatch, said: str | None, kind: str
) -> None:
    def launched(*_: Any, **__: Any) -> list[Any]:
        reason = "raised Something: no more"
        blamed = RankOutcome(1, ERROR, reason=reason, kind=said, message="no more", traceback="a stack")
        raise RankError(f"rank 1 {reason}", blamed=blamed)

    monkeypatch.setattr(team, "launch", launched)
    with pytest.raises((RankError, UnsupportedError)) as caught:
        ranks.call(failing_on_ranks.misbehave, SETTING, ranks=2, how="unsupported")
    assert failures_.kind_of(caught.value) == kind
    assert str(caught.value) == ("no more" if kind == "unsupported" else "rank 1 raised Something: no more")
    assert notes(caught.value) == "rank 1:\na stack"


# -- what does not compute what it should ------------------------------------------------------------------------------


def test_a_strategy_that_does_not_compute_the_step_is_not_timed() -> None:
    with pytest.raises(RankError, match=r"raised WrongResultError: after 3 steps `.*` under naive must be") as no:
        ranks.call(
            failing_on_ranks.run_without_synchronization,
            dataclasses.replace(SETTING, deadline=time.monotonic() + GENEROUS_S),
            ranks=2,
            spec=SPEC.plain(),
        )
    assert no.value.kind == "wrong_result"


KINDS = {
    "fp32": {},
    "autocast": {"precision": "bf16"},
    "another optimizer": {"optimizer": "sgd"},
    "low parameters": {"precision": "bf16", "parameter_dtype": "bf16"},
    "fused attention, checkpointed": {"attention": "sdpa", "groups": (2, 1)},
}


@pytest.fixture(scope="module")
def refusals() -> list[dict[str, str]]:
    """By rank, how the equivalence check of each kind of step refused each strategy that does not compute it."""
    return ranks.call(
        failing_on_ranks.check_what_is_wrong,
        dataclasses.replace(SETTING, deadline=time.monotonic() + GENEROUS_S),
        ranks=2,
        specs={name: dataclasses.replace(SPEC, **more).plain() for name, more in KINDS.items()},
    )


@pytest.mark.parametrize("wrong", failing_on_ranks.WRONG)
@pytest.mark.parametrize("kind", KINDS)
def test_the_equivalence_check_can_fail(refusals: list[dict[str, str]], kind: str, wrong: str) -> None:
    """One thing it cannot see: norms in bfloat16 are near 1, where no step of this size changes them."""
    invisible = kind == "low parameters" and wrong == "norms left alone"
    assert all(("must be within" in rank[f"{wrong}: {kind}"]) != invisible for rank in refusals)


OPERATIONS = ["all_reduce", "all_gather", "reduce_scatter", "broadcast"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_collective_that_gives_something_else_is_refused(operation: str) -> None:
    """Two ranks that began with 1 and 2; this is the second."""
    right = {
        "all_reduce": [3.0, 3.0, 3.0, 3.0],
        "all_gather": [1.0, 1.0, 2.0, 2.0],
        "reduce_scatter": [2.0, 2.0, 2.0, 2.0],
        "broadcast": [1.0, 1.0, 1.0, 1.0],
    }
    shard = torch.full((2,), 3.0 if operation == "reduce_scatter" else 0.0)
    on_ranks._check(operation, torch.tensor(right[operation]), shard, 2)
    untouched = torch.full((4,), 2.0)
    with pytest.raises(ArithmeticError, match=rf"^{operation} must give \[.*\] …, got \["):
        on_ranks._check(operation, untouched, torch.zeros(2), 2)
