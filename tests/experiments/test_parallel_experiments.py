"""What the experiments on several ranks measure and predict, at a size that takes no time."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed

from stepbench.experiments.collectives import measure as collectives_measure
from stepbench.experiments.collectives.cell import Cell as Collectives
from stepbench.experiments.data_parallel import measure as data_parallel_measure
from stepbench.experiments.data_parallel.cell import Cell as DataParallel
from stepbench.experiments.fsdp import measure as fsdp_measure
from stepbench.experiments.fsdp.cell import Cell as Fsdp
from stepbench.experiments.optimizer_sharding import measure as optimizer_sharding_measure
from stepbench.experiments.optimizer_sharding.cell import Cell as OptimizerSharding
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError
from stepbench.models import costs
from stepbench.models.sizes import ModelSize
from stepbench.pipeline import config
from stepbench.workloads import ranks

RANKS, CONTEXT, BATCH, LAYERS, VOCABULARY = 2, 16, 2, 3, 20
SIZE = {"d_model": 32, "d_ff": 64, "layers": LAYERS, "heads": 2}
SETTING = Setting(
    device="cpu",
    protocol={"warmup_steps": 1, "measured_steps": 2, "seed": 0, "threads": RANKS},
    definition={"vocabulary": VOCABULARY, "size": SIZE},
)
MEASURED_STEPS = SETTING.protocol["measured_steps"]

PARAMETERS = costs.parameters(ModelSize(**SIZE), VOCABULARY)
PARAMETER_BYTES = 4 * PARAMETERS
TENSORS = 9 * LAYERS + 3  # four attention matrices, three of the MLP and two norms; embedding, head and norm
FLAG_BYTES = 4 * TENSORS  # with which the ranks tell each other what has a gradient

PHASES = ["forward", "backward", "synchronization", "optimizer"]
RESIDENT = ("parameters", "gradients", "optimizer_state")

TRAINED: dict[str, Any] = {
    **{
        strategy: DataParallel("tiny", strategy, CONTEXT, BATCH)  # type: ignore[arg-type]
        for strategy in ("naive", "flat", "bucketed", "torch_ddp")
    },
    **{
        variant: OptimizerSharding("measured", "tiny", variant, CONTEXT, BATCH)  # type: ignore[arg-type]
        for variant in ("sharded_broadcast", "sharded_reduce_scatter")
    },
    "fsdp": Fsdp("measured", "tiny", "fsdp", CONTEXT, BATCH),
    "torch_fsdp2": Fsdp("measured", "tiny", "torch_fsdp2", CONTEXT, BATCH, compute_dtype="bf16"),
    # Parts that know nothing of each other.
    "bucketed, fused attention, checkpointed": DataParallel(
        "tiny", "bucketed", CONTEXT, BATCH, attention="sdpa", groups="2-1", optimizer="adamw_foreach"
    ),
    "fsdp, tiled attention, checkpointed": Fsdp(
        "measured", "tiny", "fsdp", CONTEXT, BATCH, attention="tiled", groups="1"
    ),
}
WATCHED = ["sharded_broadcast", "sharded_reduce_scatter", "fsdp", "fsdp, tiled attention, checkpointed"]
# Torch's own strategies have no counters.
OPERATIONS = {
    "naive": ["all_reduce"],
    "flat": ["all_reduce"],
    "bucketed": ["all_reduce"],
    "torch_ddp": None,
    "sharded_broadcast": ["all_reduce", "broadcast"],
    "sharded_reduce_scatter": ["all_gather", "all_reduce", "reduce_scatter"],
    "fsdp": ["all_gather", "all_reduce", "reduce_scatter"],
    "torch_fsdp2": None,
    "bucketed, fused attention, checkpointed": ["all_reduce"],
    "fsdp, tiled attention, checkpointed": ["all_gather", "all_reduce", "reduce_scatter"],
}
WITHOUT_COMMUNICATION = ["naive", "flat", "bucketed", "torch_ddp", "bucketed, fused attention, checkpointed"]
PAIRED = [
    "bucketed",
    "sharded_broadcast",
    "fsdp",
    "bucketed, fused attention, checkpointed",
    "fsdp, tiled attention, checkpointed",
]

# Torch's own are compared with one process in tests/parallel; their cells are measured in the long run alone.
ALL = [pytest.param(name, marks=[pytest.mark.slow] if name.startswith("torch_") else []) for name in TRAINED]

MEASURE: dict[type, Callable[[Any, Setting], Measurement]] = {
    Collectives: collectives_measure.measure,
    DataParallel: data_parallel_measure.measure,
    OptimizerSharding: optimizer_sharding_measure.measure,
    Fsdp: fsdp_measure.measure,
}


def measure(cell: Any, setting: Setting = SETTING) -> Measurement:
    return MEASURE[type(cell)](cell, setting)


@pytest.fixture(scope="module")
def measured() -> Callable[[str], Measurement]:
    """What measures one of `TRAINED`, once."""
    return functools.cache(lambda name: measure(TRAINED[name]))


@pytest.fixture(scope="module")
def predicted() -> Callable[[Any], Measurement]:
    """What predicts a cell, once."""
    return functools.cache(measure)


@pytest.fixture(autouse=True)
def _default_precision() -> Any:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


# -- samples -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_samples_are_lists_by_rank(measured: Callable[[str], Measurement], name: str) -> None:
    units = ("s", "page_faults", "system_s")
    timed = [*PHASES, "step", *(["without_communication"] if name in WITHOUT_COMMUNICATION else [])]
    once = [f"{each}_{unit}" for each in timed for unit in units]
    if (operations := OPERATIONS[name]) is not None:
        once += ["comm_wait_s", *(f"{each}_{kind}_s" for each in operations for kind in ("wait", "busy"))]
    # A ratio near 1 needs more of them.
    in_turn = [f"{each}_{unit}" for each in ("paired", "beside") for unit in units] if name in PAIRED else []
    paired = dict.fromkeys(in_turn, 2 * MEASURED_STEPS)
    # One round warms up; each has a step by phases, a whole one and perhaps one without communication, and the
    # profiler sees two more.
    losses = (1 + MEASURED_STEPS) * (3 if name in WITHOUT_COMMUNICATION else 2) + 2
    found = {key: [len(rank) for rank in ranks] for key, ranks in measured(name).samples.items()}
    expected = {**dict.fromkeys(once, MEASURED_STEPS), **paired, "loss_nats": losses}
    assert found == {key: [count] * RANKS for key, count in expected.items()}


@pytest.mark.parametrize("name", ALL)
def test_samples_are_numbers(measured: Callable[[str], Measurement], name: str) -> None:
    for key, by_rank in measured(name).samples.items():
        may_be_zero = key.endswith(("_wait_s", "_busy_s", "_page_faults", "_system_s"))
        assert all(0 < value < math.inf or (may_be_zero and value == 0) for rank in by_rank for value in rank), key


@pytest.mark.parametrize("name", ALL)
def test_what_is_measured_is_what_json_can_hold(measured: Callable[[str], Measurement], name: str) -> None:
    plain = dataclasses.asdict(measured(name))
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain


# -- the equivalence check and what is counted -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_the_equivalence_check_is_recorded(measured: Callable[[str], Measurement], name: str) -> None:
    scalars, protocol = measured(name).scalars, measured(name).protocol
    assert 0 < scalars["equivalence_plain_ratio"] < scalars["equivalence_tolerance_ratio"]
    assert scalars["equivalence_difference_ratio"] <= scalars["equivalence_tolerance_ratio"]
    # A strategy that does nothing is about 1 away.
    assert scalars["equivalence_tolerance_ratio"] < (0.5 if name == "torch_fsdp2" else 0.01)
    assert protocol["equivalence_check"] == {
        "steps": 3,
        "blocks": 2,
        "vocabulary": 1000,
        "batch": 2,
        "context": CONTEXT,
    }
    assert "float64" in protocol["checked_by"]


@pytest.mark.parametrize("name", ALL)
def test_work_and_protocol_are_recorded(measured: Callable[[str], Measurement], name: str) -> None:
    scalars, protocol = measured(name).scalars, measured(name).protocol
    assert scalars["parameters"] == PARAMETERS
    assert scalars["tokens_per_step"] == RANKS * BATCH * CONTEXT
    assert scalars["backward_flops"] == 2 * scalars["forward_flops"]
    assert (protocol["backend"], protocol["threads_per_rank"]) == ("gloo", 1)
    assert (protocol["optimizer"], protocol["attention"]) == (TRAINED[name].optimizer, TRAINED[name].attention)


@pytest.mark.parametrize(
    ("name", "collectives_per_step", "payload_bytes"),
    [
        ("naive", TENSORS + 1, PARAMETER_BYTES + FLAG_BYTES),
        ("flat", 1, PARAMETER_BYTES + FLAG_BYTES),
        # A bucket is padded to whole cache lines.
        ("bucketed", 1, 64 * math.ceil((PARAMETER_BYTES + FLAG_BYTES) / 64)),
    ],
)
def test_all_gradients_travel_once(
    measured: Callable[[str], Measurement], name: str, collectives_per_step: int, payload_bytes: int
) -> None:
    scalars = measured(name).scalars
    assert (scalars["collectives_per_step"], scalars["payload_bytes"]) == (collectives_per_step, payload_bytes)


@pytest.mark.parametrize(("name", "times"), [("sharded_broadcast", 2), ("sharded_reduce_scatter", 2), ("fsdp", 3)])
def test_what_is_sharded_travels_as_gradient_and_as_parameter(
    measured: Callable[[str], Measurement], name: str, times: int
) -> None:
    """FSDP gathers weights in both passes, but the embedding's in the forward pass alone."""
    assert measured(name).scalars["payload_bytes"] == pytest.approx(times * PARAMETER_BYTES, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, operations in OPERATIONS.items() if operations is None])
def test_torchs_own_strategies_count_nothing(measured: Callable[[str], Measurement], name: str) -> None:
    assert {"payload_bytes", "collectives_per_step"}.isdisjoint(measured(name).scalars)


# -- a step over time --------------------------------------------------------------------------------------------------

# Gloo has an all-gather of ours made of broadcasts, and a reduce-scatter of an exchange; see `communicator.py`.
LANES = {
    "naive": {"all_reduce": TENSORS + 1},
    "flat": {"all_reduce": 1},
    "bucketed": {"all_reduce": 1},
    "sharded_broadcast": {"all_reduce": 1, "broadcast": 2},
    "sharded_reduce_scatter": {"all_to_all": 1, "all_reduce": 1, "broadcast": 2},
}


@pytest.mark.parametrize("name", ALL)
def test_each_ranks_lanes_hold_the_phases_and_the_collectives_of_one_step(
    measured: Callable[[str], Measurement], name: str
) -> None:
    lanes = measured(name).details["lanes"]
    assert len(lanes) == RANKS
    for lane in lanes:
        assert [phase for phase, _, _ in lane["computation"]] == PHASES
        moments = [moment for _, start, end in lane["computation"] for moment in (start, end)]
        assert moments[0] == 0
        assert moments == sorted(moments)
        communicated = lane["communication"]
        assert all(0 <= start <= end for _, start, end in communicated)
        assert all(one[1] <= other[1] for one, other in itertools.pairwise(communicated))
        if name in LANES:
            assert Counter(operation for operation, _, _ in communicated) == LANES[name]
        else:
            assert communicated


# -- memory ------------------------------------------------------------------------------------------------------------


def resident(scalars: dict[str, Any], prefix: str = "") -> dict[str, int]:
    """What stays from step to step, as it is when a step has ended."""
    return {category: scalars[f"{prefix}optimizer_after_{category}_bytes"] for category in RESIDENT}


@pytest.mark.parametrize("name", WATCHED)
def test_what_stays_is_predicted_to_the_byte(measured: Callable[[str], Measurement], name: str) -> None:
    """Of one rank: what is predicted of the fullest one need not be of the one that was measured to be the fullest."""
    by_rank = measured(name).details["measured_by_rank"]
    assert resident(measured(name).scalars, "predicted_") in [resident(rank) for rank in by_rank]
    # Shards are not all alike: a whole norm is one rank's, and each part of a parameter counts its steps.
    for rank in by_rank:
        assert resident(rank) == pytest.approx(resident(measured(name).scalars, "predicted_"), rel=0.01)


@pytest.mark.parametrize("name", WATCHED)
def test_what_is_predicted_alone_is_what_is_predicted_among_the_ranks(
    measured: Callable[[str], Measurement], predicted: Callable[[Any], Measurement], name: str
) -> None:
    alone = predicted(dataclasses.replace(TRAINED[name], source="predicted")).scalars
    among = measured(name).scalars
    keys = {key for key in among if key.startswith("predicted_")}
    assert keys <= set(alone)
    # Alone it is rank 0, among the ranks the fullest, and shards are not all alike.
    assert {key: alone[key] for key in keys} == pytest.approx({key: among[key] for key in keys}, rel=0.01)


@pytest.mark.parametrize("name", WATCHED)
def test_of_measured_bytes_the_rank_with_the_most_counts(measured: Callable[[str], Measurement], name: str) -> None:
    scalars, by_rank = measured(name).scalars, measured(name).details["measured_by_rank"]
    assert len(by_rank) == RANKS
    fullest = max(by_rank, key=lambda rank: rank["peak_memory_bytes"])
    assert {key: scalars[key] for key in fullest} == fullest
    assert [phase for phase, _, _ in measured(name).details["timeline"]["spans"]] == PHASES


@pytest.mark.slow
def test_of_what_no_way_to_count_sees_right_no_bytes_are_told(measured: Callable[[str], Measurement]) -> None:
    """It empties storages that go on to live, and the profiler loses what other threads free."""
    found = measured("torch_fsdp2")
    assert not [key for key in found.scalars if key.endswith("_bytes")]
    assert set(found.details) == {"lanes"}


@pytest.mark.parametrize("name", WATCHED)
def test_two_ranks_share_the_optimizers_state(
    measured: Callable[[str], Measurement], predicted: Callable[[Any], Measurement], name: str
) -> None:
    whole = resident(
        predicted(OptimizerSharding("predicted", "tiny", "replicated", CONTEXT, BATCH)).scalars, "predicted_"
    )
    found = resident(measured(name).scalars)
    assert whole["optimizer_state"] == pytest.approx(2 * PARAMETER_BYTES, rel=0.01)
    assert found["optimizer_state"] == pytest.approx(whole["optimizer_state"] / 2, rel=0.01)
    strategy = TRAINED[name].strategy
    shared = strategy == "fsdp"
    assert found["parameters"] == pytest.approx(whole["parameters"] / (2 if shared else 1), rel=0.01)
    # Reduce-scattered gradients are consumed by the optimizer.
    gradients = {"fsdp": whole["gradients"] / 2, "sharded_reduce_scatter": 0}.get(strategy, whole["gradients"])
    assert found["gradients"] == pytest.approx(gradients, rel=0.01)


# -- predicted in this process -----------------------------------------------------------------------------------------

PREDICTED: list[Any] = [
    *(
        OptimizerSharding("predicted", "tiny", variant, CONTEXT, BATCH, ranks=8)  # type: ignore[arg-type]
        for variant in ("replicated", "sharded_broadcast", "sharded_reduce_scatter", "torch_zero")
    ),
    Fsdp("predicted", "tiny", "ddp", CONTEXT, BATCH, ranks=8),
    Fsdp("predicted", "tiny", "fsdp", CONTEXT, BATCH, ranks=8),
]


@pytest.mark.parametrize("cell", PREDICTED, ids=lambda cell: cell.variant)
def test_many_ranks_are_predicted_in_one_process(
    monkeypatch: pytest.MonkeyPatch, predicted: Callable[[Any], Measurement], cell: Any
) -> None:
    monkeypatch.setattr(ranks, "call", None)
    found = predicted(cell)
    assert not distributed.is_initialized()
    assert found.samples == {}
    assert found.scalars["parameters"] == PARAMETERS
    given = {"parameters", "tokens_per_step", "flops_unknown", "sharded_ratio"}
    given |= {"forward_flops", "backward_flops", "least_flops"}
    assert all(key in given or key.startswith("predicted_") for key in found.scalars), found.scalars
    assert [phase for phase, _, _ in found.details["timeline"]["spans"]] == PHASES
    whole = cell.variant in ("replicated", "ddp")
    state = found.scalars["predicted_before_optimizer_state_bytes"]
    assert state == pytest.approx(2 * PARAMETER_BYTES / (1 if whole else 8), rel=0.1)


@pytest.mark.slow
def test_a_prediction_follows_the_compute_dtype_and_the_prefetch(predicted: Callable[[Any], Measurement]) -> None:
    def peak(**more: Any) -> int:
        return predicted(Fsdp("predicted", "tiny", "fsdp", CONTEXT, BATCH, **more)).scalars[
            "predicted_peak_memory_bytes"
        ]

    assert peak(prefetch=0) < peak(prefetch=2)
    assert peak(compute_dtype="bf16") < peak()
    assert peak(prefetch=1) == peak()


def test_what_looks_at_values_cannot_be_predicted() -> None:
    with pytest.raises(
        UnsupportedError, match=r"^a strategy must not look at values of tensors to be predicted, and torch_fsdp2 does$"
    ):
        measure(Fsdp("predicted", "tiny", "torch_fsdp2", CONTEXT, BATCH))


def test_a_prediction_that_fails_leaves_no_process_group_behind() -> None:
    with pytest.raises(UnsupportedError, match="parameters in bf16 need the precision bf16, got fp32"):
        measure(OptimizerSharding("predicted", "tiny", "replicated", CONTEXT, BATCH, parameter_dtype="bf16"))
    assert not distributed.is_initialized()


# Published for two RTX 5090, batch 2, context 256, all in bf16; without sharding the state is 7622.7 MiB.
MIB = 2**20
SHARDED_STATE_MIB, SHARDED_PEAK_MIB = 3811.3, 13_679


@pytest.mark.slow
def test_the_xl_size_needs_what_was_published() -> None:
    size = config.read(Path(__file__).parents[2] / "config.yaml")["sizes"]["xl"]
    assert size == {"d_model": 1600, "d_ff": 6400, "layers": 48, "heads": 25}
    cell = OptimizerSharding(
        "predicted",
        "xl",
        "sharded_broadcast",
        context=256,
        batch=2,
        precision="bf16",
        parameter_dtype="bf16",
    )
    scalars = measure(cell, dataclasses.replace(SETTING, definition={"vocabulary": 10_000, "size": size})).scalars
    assert scalars["predicted_before_optimizer_state_bytes"] / MIB == pytest.approx(SHARDED_STATE_MIB, rel=0.001)
    assert scalars["predicted_peak_memory_bytes"] / MIB == pytest.approx(SHARDED_PEAK_MIB, rel=0.03)


# -- collectives -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "ranks", "message_bytes"),
    [("reduce_scatter", 2, 4096), ("all_gather", 3, 4092)],
)
def test_a_collective_is_timed_on_each_rank(operation: Any, ranks: int, message_bytes: int) -> None:
    """A message has as many bytes as were asked for, less what cannot be divided; Gloo's is on the CPU everywhere."""
    setting = dataclasses.replace(SETTING, device="mps", protocol=SETTING.protocol | {"threads": ranks})
    found = measure(Collectives(operation, "gloo", ranks, 4096), setting)
    assert list(found.samples) == ["call_s", "call_page_faults", "call_system_s"]
    assert [len(rank) for rank in found.samples["call_s"]] == [3 * MEASURED_STEPS] * ranks
    assert all(value > 0 for rank in found.samples["call_s"] for value in rank)
    assert found.scalars == {"message_bytes": message_bytes}
    assert found.protocol["loops"] in [2**power for power in range(9)]
    assert (found.protocol["dtype"], found.protocol["tensors_on"]) == ("fp32", "cpu")
