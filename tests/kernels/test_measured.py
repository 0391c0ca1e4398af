"""Times of kernels in bundles: what is read, what is refused, and that these kernels are compiled again."""

from typing import Any

import pytest

triton = pytest.importorskip("triton")

from stepbench.kernels.triton import measured  # noqa: E402 - after the check that there is a triton
from stepbench.kernels.triton.limits.refit import Launch  # noqa: E402
from stepbench.kernels.triton.tiles import Tile  # noqa: E402

ON = {"device": "NVIDIA H200", "architecture": "sm_90", "multiprocessors": 132, "triton": triton.__version__}
TIME = {
    "kernel": "forward", "tile": [128, 64, 8, 3], "descriptors": True, "head_dim": 64, "dtype": "bfloat16",
    "causal": True, "context": 2048, "tokens": 16_384, "width": 2048, "seconds": 1e-3, "predicted_s": 9e-4,
}  # fmt: skip


def bundle(*lines: Any, **on: Any) -> dict[str, Any]:
    return {"kernels": {"on": ON | on, "timed": list(lines)}}


def test_times_of_a_kernel_are_gathered_and_it_is_compiled_once() -> None:
    """With the compiler of the installed Triton; 106 registers let two programs share a multiprocessor."""
    first = bundle(TIME, TIME | {"context": 16_384, "seconds": 2e-3}, {"implementation": "triton", "seconds": 1.0})
    second = bundle(TIME | {"causal": False}, TIME | {"failed": "it spills"})
    (kernel,) = measured.kernels({"a": first, "b": second})
    assert (kernel.name, kernel.head_dim, kernel.tile, kernel.programs) == ("forward", 64, Tile(128, 64, 8, 3), 2)
    assert kernel.launches == (
        Launch(2048, True, 16_384, 2048, 1e-3),
        Launch(16_384, True, 16_384, 2048, 2e-3),
        Launch(2048, False, 16_384, 2048, 1e-3),
    )
    assert sum(x.kind == "product" for x in kernel.code) > 8


def test_what_makes_another_kernel_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measured, "_compiled", lambda variant: (1, ()))
    others = [{"tile": [128, 64, 8, 3, 128]}, {"head_dim": 128}, {"dtype": "float16"}, {"descriptors": False}]
    found = measured.kernels({"a": bundle(TIME, *(TIME | other for other in others))})
    assert [len(kernel.launches) for kernel in found] == [1] * 5
    assert found[1].tile.maxnreg == 128


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "a: a bundle must hold times of kernels as `make gpu-check` takes them, got none"),
        ({"kernels": {"on": None, "timed": []}}, "must hold times of kernels"),
        (bundle(architecture="sm_120"), "of sm_90 with 132 .*, got times of sm_120 with 132"),
        (bundle(multiprocessors=114), "H100 SXM, H200.*, got times of sm_90 with 114"),
        (bundle(triton="1.0.0"), "must be of the installed Triton .*, got 1.0.0: install that version"),
        (
            bundle({**TIME, "kernel": "cholesky"}),
            "`make gpu-check` writes it, got .*`kernel` must be one of forward",
        ),
        (bundle({**TIME, "seconds": -1.0}), "`seconds` must be positive"),
        (bundle({**TIME, "seconds": float("nan")}), "`seconds` must be positive"),
        (bundle({**TIME, "tile": [128, "64", 8, 3]}), "sizes must be positive integers"),
        (bundle({**TIME, "context": 0}), "sizes must be positive integers"),
        (bundle({**TIME, "tile": 7}), "a: a time of a kernel must be"),
        (bundle({"kernel": "forward"}), "KeyError: 'dtype'"),
        (bundle("a line"), "got 'a line'"),
    ],
)
def test_what_is_no_time_of_a_kernel_is_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measured.kernels({"a": content})
