"""Times of kernels and implementations, on a GPU that is not there: their order, their time limit, what is kept."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from stepbench.kernels import api
from stepbench.kernels.triton import candidates, tune
from stepbench.kernels.triton.candidates import Candidate, Problem
from stepbench.kernels.triton.limits.grid import Speed
from stepbench.kernels.triton.limits.machine import Machine
from stepbench.kernels.triton.limits.predict import Limits
from stepbench.kernels.triton.tiles import KERNELS, Tile, plan_for
from stepbench.kernels.triton.tune import Timing
from stepbench.workloads import kernel_timings

PROBLEM = Problem(64, context=512, tokens=1024)


class Pool:
    """Stands in for the pool of compilers: appraises at once, and the tile of 32 rows does not compile."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None: ...

    def shutdown(self, **_: bool) -> None: ...

    def submit(self, function: Any, *, kernel: str, tile: Tile, **options: Any) -> Any:
        assert function is candidates.appraise

        class Done:
            @staticmethod
            def result() -> list[Candidate]:
                return [] if tile.rows == 32 else [Candidate(tile, predicted(kernel, tile))]

        return Done


def predicted(kernel: str, tile: Tile) -> Limits:
    speed = Speed(100.0, 0.0, 10.0, ((float(tile.rows),), (float(tile.rows),)), masked=1, busy={}, waits={})
    return Limits(kernel, 64, tile, 1, {}, {}, 1.0, speed, Machine())


def predicted_s(kernel: str, tile: Tile) -> float:
    return predicted(kernel, tile).seconds(512, is_causal=True, tokens=1024, width=2048)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pretend an H100 on which every timing takes a second of the returned clock."""
    now = [0.0]
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(kernel_timings, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        candidates, "LIKELIEST", {(kernel, 64): [(64, 64, 4, 2), (32, 64, 4, 2), (16, 64, 4, 2)] for kernel in KERNELS}
    )

    def timed(problem: Problem, kernel: str, plan: Any, found: list[Candidate]) -> list[Timing]:
        now[0] += 1.0
        if kernel == "backward_keys":
            raise RuntimeError("CUDA error: an illegal memory access\nand more of it")
        if kernel == "backward_fused":
            return []  # not exact
        return [Timing(each.tile, 1e-3, each.predicted_s(problem)) for each in found]

    def timed_pass(name: str, problem: Problem, passed: str) -> float:
        now[0] += 1.0
        return 2e-3

    def unsupported_reason(name: str, **options: Any) -> str | None:
        return "triton_reduced is not for you" if name == "triton_reduced" else None

    monkeypatch.setattr(tune, "timed", timed)
    monkeypatch.setattr(kernel_timings, "timed_pass", timed_pass)
    monkeypatch.setattr(api, "unsupported_reason", unsupported_reason)
    return now


def test_kernels_are_timed_first_then_rivals_and_then_ours(gpu: list[float]) -> None:
    lines: list[dict[str, Any]] = []
    left = kernel_timings.measure([PROBLEM], keep=lines.append, deadline=1e9)
    assert left == 0
    kernels, implementations = lines[:-10], lines[-10:]
    plan = plan_for("sm_90", 64, "bfloat16", True)
    shapes = [(64, 64, 4, 2), (32, 64, 4, 2)]
    assert [(line["kernel"], tuple(line["tile"])) for line in kernels] == [
        (kernel, shape) for kernel in KERNELS for shape in dict.fromkeys([*shapes, tuple(getattr(plan, kernel).shape)])
    ]
    for line in kernels:
        assert line["descriptors"] is True
        assert (line["context"], line["tokens"], line["width"], line["causal"]) == (512, 1024, 2048, True)
    assert [(line["implementation"], line["pass"]) for line in implementations] == [
        (name, passed)
        for name in ("sdpa_flash", "sdpa_cudnn", "triton", "triton_one_loop", "triton_reduced")
        for passed in ("forward", "backward")
    ]


def test_predicted_stands_beside_measured(gpu: list[float]) -> None:
    lines: list[dict[str, Any]] = []
    kernel_timings.measure([PROBLEM], keep=lines.append, deadline=1e9)
    plan = plan_for("sm_90", 64, "bfloat16", True)
    found = {(line.get("implementation"), line.get("pass")): line.get("predicted_s") for line in lines[-10:]}
    forward, keys, queries = (
        predicted_s(kernel, getattr(plan, kernel)) for kernel in ("forward", "backward_keys", "backward_queries")
    )
    assert lines[0]["predicted_s"] == pytest.approx(predicted_s("forward", Tile(64, 64, 4, 2)))
    assert found["triton", "forward"] == pytest.approx(forward)
    assert found["triton", "backward"] == pytest.approx(keys + queries)
    assert found["triton_one_loop", "forward"] == pytest.approx(predicted_s("forward_one_loop", plan.forward))
    assert found["sdpa_flash", "forward"] is None
    told = kernel_timings.sentence(lines[-6])
    beside = f"{forward * 1e3:.3f} ms predicted ({forward / 2e-3 - 1:+.0%})"
    assert told == f"triton forward at 512, 32 × 64, causal: 2.000 ms, {beside}"
    assert kernel_timings.sentence(lines[-10]) == "sdpa_flash forward at 512, 32 × 64, causal: 2.000 ms"


def test_what_fails_costs_only_itself_and_says_why(gpu: list[float]) -> None:
    lines: list[dict[str, Any]] = []
    kernel_timings.measure([PROBLEM], keep=lines.append, deadline=1e9)
    failed = {(line.get("kernel") or line["implementation"], tuple(line.get("tile", ()))): line["failed"]
              for line in lines if "failed" in line}  # fmt: skip
    assert failed["forward", (32, 64, 4, 2)] == "RuntimeError: it spills or does not compile here"
    assert failed["backward_keys", (64, 64, 4, 2)] == "RuntimeError: CUDA error: an illegal memory access"
    assert "further from float64" in failed["backward_fused", (64, 64, 4, 2)]
    assert failed["triton_reduced", ()] == "triton_reduced is not for you"
    assert not any(kernel == "backward_queries" and shape[0] != 32 for kernel, shape in failed)
    line = next(line for line in lines if "failed" in line)
    assert kernel_timings.sentence(line) == (
        "forward 32×64, 4 warps, 2 stages at 512, 32 × 64, causal: RuntimeError: it spills or does not compile here"
    )


def test_nothing_is_begun_after_the_deadline(gpu: list[float]) -> None:
    lines: list[dict[str, Any]] = []
    asked = [PROBLEM, replace(PROBLEM, context=1024)]
    whole = kernel_timings.measure(asked, keep=lines.append, deadline=-1.0)
    assert not lines
    left = kernel_timings.measure(asked, keep=lines.append, deadline=3.5)
    assert len([line for line in lines if "it spills" not in line.get("failed", "")]) == 4
    assert left == whole - len(lines)


@pytest.mark.parametrize(
    ("capability", "version", "timed"), [((9, 0), "3.7.1", 1), ((9, 0), "3.6.0", 0), ((10, 0), "3.7.1", 0)]
)
def test_the_experimental_kernel_is_timed_last_where_it_can_run(
    gpu: list[float], monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], version: str, timed: int
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(kernel_timings.triton, "__version__", version)
    monkeypatch.setattr(kernel_timings, "timed_gluon", lambda problem: problem.context * 1e-6)
    monkeypatch.setattr(candidates, "LIKELIEST", {})
    lines: list[dict[str, Any]] = []
    kernel_timings.measure([replace(PROBLEM, head_dim=128), PROBLEM], keep=lines.append, deadline=1e9)
    found = [number for number, line in enumerate(lines) if line.get("implementation") == "gluon"]
    assert found == [len(lines) - 1] * timed
    if found:
        assert kernel_timings.sentence(lines[-1]) == "gluon forward at 512, 16 × 128, causal: 0.512 ms"


def test_the_experimental_kernel_is_checked_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, with attention in its place."""
    from stepbench.kernels.triton import gluon_forward

    worth = [1.0]

    def forward(q: Any, k: Any, v: Any, scale: float, is_causal: bool) -> tuple[torch.Tensor, None]:
        assert scale == q.shape[-1] ** -0.5
        return worth[0] * api.bind("naive")(q, k, v, is_causal=is_causal), None

    def inputs(self: Problem) -> tuple[torch.Tensor, ...]:
        torch.manual_seed(0)
        return tuple(torch.randn(1, 2, min(self.context, 512), self.head_dim, dtype=torch.bfloat16) for _ in range(4))

    monkeypatch.setattr(gluon_forward, "forward", forward)
    monkeypatch.setattr(Problem, "inputs", inputs)
    monkeypatch.setattr(kernel_timings, "_median_s", lambda work: (work(), 3e-3)[1])
    assert kernel_timings.timed_gluon(replace(PROBLEM, head_dim=128)) == 3e-3
    worth[0] = 1.1
    with pytest.raises(RuntimeError, match="further from float64 than it may be"):
        kernel_timings.timed_gluon(replace(PROBLEM, head_dim=128))


@pytest.mark.parametrize(("capability", "dtype"), [((9, 0), "bfloat16"), ((7, 5), "float16")])
def test_the_problems_are_few_and_at_the_papers_size(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    found = kernel_timings.problems()
    assert [(each.context, each.head_dim) for each in found] == [(2048, 64), (2048, 128), (16384, 64), (16384, 128)]
    assert {(each.tokens, each.width, each.is_causal, each.dtype) for each in found} == {(16384, 2048, True, dtype)}


def test_an_implementation_is_checked_before_it_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU, with what stands in for do_bench."""
    from stepbench.measure.measurement import WrongResultError

    timed: list[Any] = []

    def do_bench(work: Any, **options: Any) -> float:
        timed.append(work())
        return 3.0

    def inputs(problem: Problem) -> tuple[torch.Tensor, ...]:
        shape = (problem.tokens // problem.context, problem.width // 64, problem.context, 64)
        return tuple(torch.randn(shape, generator=torch.Generator().manual_seed(n)) for n in range(4))

    monkeypatch.setattr(kernel_timings.triton.testing, "do_bench", do_bench)
    monkeypatch.setattr(Problem, "inputs", inputs)
    problem = Problem(64, context=64, tokens=64, width=64, dtype="float32")
    assert kernel_timings.timed_pass("tiled", problem, "forward") == 3e-3
    assert kernel_timings.timed_pass("tiled", problem, "backward") == 3e-3
    assert timed[0].shape == (1, 1, 64, 64)
    assert [x.shape for x in timed[1]] == [(1, 1, 64, 64)] * 3
    bind = api.bind
    wrong = {"tiled": lambda *inputs, **options: 1.1 * bind("naive")(*inputs, **options)}
    monkeypatch.setattr(api, "bind", lambda name: wrong.get(name) or bind(name))
    with pytest.raises(WrongResultError, match="o must be within"):
        kernel_timings.timed_pass("tiled", problem, "forward")
    assert len(timed) == 2
