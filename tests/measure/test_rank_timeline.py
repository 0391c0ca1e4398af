"""A rank's two lanes, from scripted events of both kinds of device and from the profiler's own."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType

from stepbench.measure import rank_timeline
from stepbench.measure.rank_timeline import MARK, PROFILED_STEPS, Span, collective, read, watch

PHASES = ["forward", "backward"]
CUDA = DeviceType.CUDA


def event(name: str, start: float, end: float, device: DeviceType = DeviceType.CPU) -> SimpleNamespace:
    return SimpleNamespace(name=name, time_range=SimpleNamespace(start=start, end=end), device_type=device)


def marks(begin: float) -> list[Any]:
    """Two phases of 400 µs with 100 µs between them."""
    return [
        event(f"{MARK}forward", begin, begin + 400),
        event(f"{MARK}backward", begin + 500, begin + 900),
    ]


def plain(spans: list[Span]) -> list[tuple[str, int, int]]:
    """In microseconds, as the events are."""
    return [(each.name, round(each.start_s * 1e6), round(each.end_s * 1e6)) for each in spans]


# -- scripted events ---------------------------------------------------------------------------------------------------


def test_on_a_cpu_phases_are_what_is_computed_and_gloo_is_what_is_communicated() -> None:
    events = [
        *marks(10_000),
        event("gloo:broadcast", 10_700, 10_950),
        event("gloo:all_reduce", 10_450, 10_600),
        event("aten::mm", 10_100, 10_200),
    ]
    lanes = read(events, PHASES)
    assert plain(lanes["computation"]) == [("forward", 0, 400), ("backward", 500, 900)]
    assert plain(lanes["communication"]) == [("all_reduce", 450, 600), ("broadcast", 700, 950)]


def test_the_last_step_counts_alone() -> None:
    """With what began in it; what other steps and the barrier before it communicated is left out."""
    events = [
        *marks(20_000),
        *marks(10_000),
        event("gloo:broadcast", 10_700, 10_800),
        event("gloo:barrier", 19_990, 20_001),
        event("gloo:all_reduce", 20_450, 20_600),
        event("gloo:all_reduce", 20_900, 20_950),
    ]
    lanes = read(events, PHASES)
    assert plain(lanes["computation"]) == [("forward", 0, 400), ("backward", 500, 900)]
    assert plain(lanes["communication"]) == [("all_reduce", 450, 600)]


def test_on_cuda_kernels_are_what_is_computed_and_nccl_is_what_is_communicated() -> None:
    events = [
        *marks(10_000),
        event("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", 10_300, 10_600, CUDA),
        event("ampere_sgemm_128x64_nn", 10_100, 10_150, CUDA),
        event("vectorized_elementwise_kernel", 10_700, 10_800, CUDA),
        # What the profiler makes of our own marks on the device.
        *(event(each.name, each.time_range.start, each.time_range.end, CUDA) for each in marks(10_000)),
        event("ampere_sgemm_128x64_nn", 9_900, 9_950, CUDA),
    ]
    lanes = read(events, PHASES)
    assert plain(lanes["computation"]) == [("kernels", 100, 150), ("kernels", 700, 800)]
    assert plain(lanes["communication"]) == [("all_reduce", 300, 600)]


def test_kernels_with_short_gaps_are_one_span() -> None:
    gap = round(rank_timeline.GAP_S * 1e6)
    events = [
        *marks(10_000),
        event("third", 10_150 + gap - 1, 10_200 + gap, CUDA),
        event("first", 10_000, 10_150, CUDA),
        event("within the first, on another stream", 10_050, 10_060, CUDA),
        event("after a pause", 10_200 + 2 * gap + 1, 10_300, CUDA),
    ]
    assert plain(read(events, PHASES)["computation"]) == [
        ("kernels", 0, 200 + gap),
        ("kernels", 200 + 2 * gap + 1, 300),
    ]


def test_a_collective_between_two_kernels_is_no_kernel() -> None:
    """The kernels around it are as far apart as it is long."""
    events = [
        *marks(10_000),
        event("before", 10_000, 10_050, CUDA),
        event("ncclDevKernel_AllGather_RING_LL", 10_050, 10_350, CUDA),
        event("after", 10_350, 10_390, CUDA),
    ]
    lanes = read(events, PHASES)
    assert plain(lanes["computation"]) == [("kernels", 0, 50), ("kernels", 350, 390)]
    assert plain(lanes["communication"]) == [("all_gather", 50, 350)]


@pytest.mark.parametrize("seen", [marks(0)[:1], [*marks(0)[:1], event(f"{MARK}backward", 500, 900, CUDA)], []])
def test_a_phase_that_was_not_seen_is_an_error(seen: list[Any]) -> None:
    missing = "backward" if seen else "forward"
    with pytest.raises(ValueError, match=f"did not record the phase {missing}"):
        read(seen, PHASES)


@pytest.mark.parametrize(
    ("name", "device", "operation"),
    [
        ("gloo:all_reduce", DeviceType.CPU, "all_reduce"),
        ("gloo:all_to_all", DeviceType.CPU, "all_to_all"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", CUDA, "all_reduce"),
        ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)", CUDA, "all_gather"),
        ("ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL", CUDA, "reduce_scatter"),
        ("ncclKernel_Broadcast_RING_LL_Sum_int8_t(ncclDevComm*, unsigned long, ncclWork*)", CUDA, "broadcast"),
        ("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", CUDA, "nccl"),
        # What the host does for NCCL is not the communication itself.
        ("nccl:all_reduce", DeviceType.CPU, None),
        ("c10d::allreduce_", DeviceType.CPU, None),
        ("aten::mm", DeviceType.CPU, None),
        ("ampere_sgemm_128x64_nn", CUDA, None),
    ],
)
def test_a_collective_is_known_by_its_backends_event(name: str, device: DeviceType, operation: str | None) -> None:
    assert collective(event(name, 0, 1, device)) == operation


# -- the profiler's own ------------------------------------------------------------------------------------------------


def test_real_phases_are_watched_one_after_the_other() -> None:
    calls: list[str] = []

    def phase(name: str) -> None:
        calls.append(name)
        torch.ones(8).sum()

    phases = {name: lambda name=name: phase(name) for name in ("optimizer", "forward")}
    lanes = watch(phases, device="cpu", before=lambda: calls.append("before"))
    assert calls == ["before", "optimizer", "forward"] * PROFILED_STEPS
    assert list(lanes) == ["computation", "communication"]
    assert lanes["communication"] == []
    (first, start, first_end), (second, second_start, end) = lanes["computation"]
    assert (first, second, start) == ("optimizer", "forward", 0)
    assert 0 < first_end <= second_start < end
