"""What does one attention operator cost, in each implementation there is?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from stepbench import versions
from stepbench.experiments.attention.cell import Cell
from stepbench.kernels import naive, reference
from stepbench.kernels.api import UnsupportedAttention, attention, bind, unsupported_reason
from stepbench.measure import clock, memory, timing
from stepbench.measure.device_timing import CudaStream, time_on_device
from stepbench.measure.devices import KINDS
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError
from stepbench.measure.paging import Paging
from stepbench.workloads import attention_check

HELD_CLOCK = "events on a stream that is held while the work is launched"
L2_FLUSH_BYTES = 256 * 2**20  # five times the 50 MiB of an H100


def measure(cell: Cell, setting: Setting) -> Measurement:
    """Time forward and backward pass apart and as one call, after checking both against float64.

    The backward pass is timed alone: each repeat has its own forward pass outside the timed region.
    """
    implementation = setting.kernel(cell.implementation)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[cell.dtype]
    reason = unsupported_reason(
        implementation,
        device=setting.device,
        dtype=dtype,
        head_dim=cell.head_dim,
        q_len=cell.seq,
        is_causal=cell.causal,
    )
    if reason is not None:
        raise UnsupportedError(reason)
    torch.manual_seed(setting.protocol["seed"])
    shape = (cell.batch, cell.heads, cell.seq, cell.head_dim)
    q, k, v = (torch.randn(shape, device=setting.device, dtype=dtype, requires_grad=True) for _ in range(3))
    upstream = torch.randn(shape, device=setting.device, dtype=dtype)

    def forward() -> torch.Tensor:
        try:
            out = attention(q, k, v, is_causal=cell.causal, impl=implementation)
        except UnsupportedAttention as error:  # what a backend of torch says only when it is called
            raise UnsupportedError(str(error)) from error
        assert isinstance(out, torch.Tensor)  # noqa: S101 (no logsumexp was asked for)
        return out

    errors = attention_check.errors(
        forward,
        (q, k, v),
        upstream,
        causal=cell.causal,
        impl=implementation,
        exact=bind(reference.IMPLEMENTATION),
        # Imported, since its errors are recorded: a change of it makes the operator's cells stale, whatever they name.
        plain=bind(naive.IMPLEMENTATION),
    )
    saved_bytes = _saved_bytes(forward)
    own_peak = memory.peak_of(
        lambda: torch.autograd.grad(forward(), (q, k, v), upstream), device=setting.device, inputs=(q, k, v, upstream)
    )
    calls = memory.AllocatorCalls(setting.device)
    samples, held = _time(forward, (q, k, v), upstream, setting, after_warmup=calls.start)
    has_events = KINDS[setting.device].has_events
    # A product of [m, k] and [k, n] is 2 m k n; scores and values are one each. A causal mask needs half of them.
    flops = 4 * cell.batch * cell.heads * cell.seq * cell.seq * cell.head_dim // (2 if cell.causal else 1)
    return Measurement(
        samples=samples,
        scalars={
            "forward_flops": flops,
            "backward_flops": flops * 5 // 2,
            "saved_bytes": saved_bytes,
            "score_matrix_bytes": cell.batch * cell.heads * cell.seq * cell.seq * dtype.itemsize,
            **errors,
            "forward_backward_flops": flops + flops * 5 // 2,
            **own_peak,
            **held,
            **calls.scalars(),
        },
        protocol={
            "clock": HELD_CLOCK if has_events else clock.for_device(setting.device).name,
            "l2_flush_bytes": L2_FLUSH_BYTES if has_events else None,
            "effective_threads": torch.get_num_threads(),
            "fp_fusion": versions.FP_FUSION if cell.implementation.startswith("triton") else None,
        },
    )


def _time(
    forward: Callable[[], torch.Tensor],
    inputs: tuple[torch.Tensor, ...],
    upstream: torch.Tensor,
    setting: Setting,
    *,
    after_warmup: Callable[[], object],
) -> tuple[dict[str, Any], dict[str, float]]:
    """Time the passes apart and both as one call, with a cold L2 cache where the device has events.

    Returns:
        Samples: `forward_s`, `backward_s` and `forward_backward_s`; on a device with events `<pass>_host_s`, the
        host's time for launching it, elsewhere faults and system time. Scalars: `<pass>_held_ratio`, see
        `stepbench.measure.device_timing`.
    """
    kept: list[torch.Tensor] = []
    has_events = KINDS[setting.device].has_events
    cache = torch.empty(L2_FLUSH_BYTES if has_events else 0, dtype=torch.int8, device=setting.device)
    timer = clock.for_device(setting.device)
    stream = CudaStream() if has_events else None

    def backward() -> None:
        torch.autograd.grad(kept.pop(), inputs, upstream)

    def prepare_backward() -> None:
        kept[:] = [forward()]
        cache.zero_()

    def both() -> None:
        torch.autograd.grad(forward(), inputs, upstream)

    def repeat(
        name: str, work: Callable[[], object], before: Callable[[], object], repeats: int
    ) -> tuple[dict[str, list[float]], dict[str, float]]:
        if stream is not None:
            times = time_on_device(work, before=before, repeats=repeats, stream=stream)
            return times.samples(name), times.scalars(name)
        samples, paged = [], Paging()
        for _ in range(repeats):
            before()
            samples += timing.time_whole(work, clock=timer, repeats=1, paged=paged)
        return {f"{name}_s": samples, **paged.samples(name)}, {}

    warmup, measured = setting.protocol["warmup_steps"], setting.protocol["measured_steps"]
    repeat("backward", backward, prepare_backward, warmup)
    after_warmup()
    found: dict[str, Any] = {}
    held: dict[str, float] = {}
    passes = {
        "forward": (forward, cache.zero_),
        "backward": (backward, prepare_backward),
        "forward_backward": (both, cache.zero_),
    }
    for name, (work, before) in passes.items():
        samples, scalars = repeat(name, work, before, measured)
        found |= samples
        held |= scalars
    return found, held


def _saved_bytes(forward: Callable[[], torch.Tensor]) -> int:
    """Return the bytes that autograd keeps for the backward pass, each storage once, the inputs included."""
    storages: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = forward()
    del out
    return sum(storages.values())
