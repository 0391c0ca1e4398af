"""The contract: what is refused, with which sentence, and that a new implementation is a file and a line."""

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from stepbench.kernels import api
from stepbench.kernels.api import IMPLEMENTATIONS, UnsupportedAttention, attention, unsupported_reason
from stepbench.kernels.heads import api as heads

ON_CPU = [
    name for name in IMPLEMENTATIONS if unsupported_reason(name, device="cpu", dtype=torch.float32, head_dim=16) is None
]


def tensors(
    q: tuple[int, ...] = (2, 4, 6, 16), k: tuple[int, ...] = (2, 2, 6, 16), v: tuple[int, ...] | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(q), torch.randn(k), torch.randn(k if v is None else v)


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        ({"q": (6, 16)}, r"`q`, `k` and `v` must be \[B, heads, T, D\], got q \[6, 16\], k \[2, 2, 6, 16\]"),
        ({"v": (2, 2, 7, 16)}, "`k` and `v` must have one shape, got"),
        ({"q": (2, 4, 0, 16)}, "must not be empty, got"),
        ({"q": (3, 4, 6, 16)}, "must have the same batch and head dim, got"),
        ({"q": (2, 4, 6, 32)}, "must have the same batch and head dim, got"),
        ({"q": (2, 3, 6, 16)}, "the heads of `q` must be a multiple of those of `k`, got"),
        ({"q": (2, 4, 6, 4), "k": (2, 2, 6, 4)}, "the head dim must be 8 to 256, got 4"),
        ({"q": (1, 1, 2, 257), "k": (1, 1, 2, 257)}, "the head dim must be 8 to 256, got 257"),
    ],
)
def test_shapes_that_break_the_contract(shapes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        attention(*tensors(**shapes))


def test_one_dtype_and_a_float_one() -> None:
    q, k, v = tensors()
    with pytest.raises(ValueError, match="must have one dtype, got bfloat16, float32"):
        attention(q, k.bfloat16(), v)
    with pytest.raises(ValueError, match="the dtype must be one of float64, float32, bfloat16, float16, got int32"):
        attention(q.int(), k.int(), v.int())


def test_one_device() -> None:
    q, k, v = tensors()
    with pytest.raises(ValueError, match="must be on one device, got cpu, meta"):
        attention(q, k.to("meta"), v)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_that_is_no_positive_number(scale: float) -> None:
    with pytest.raises(ValueError, match="`scale` must be positive and finite, got"):
        attention(*tensors(), scale=scale)


def test_an_unknown_implementation_lists_the_valid_ones() -> None:
    sentence = "`impl` must be one of naive, reference, tiled, triton, .*, flex, got 'flash'"
    with pytest.raises(ValueError, match=sentence):
        attention(*tensors(), impl="flash")
    with pytest.raises(ValueError, match=sentence):
        unsupported_reason("flash", device="cpu", dtype=torch.float32, head_dim=64)


@pytest.mark.parametrize(
    "impl", ["triton", "triton_atomics", "triton_reduced", "triton_one_loop", "sdpa_cudnn", "sdpa_efficient", "flex"]
)
def test_what_this_device_lacks_is_a_reason_and_never_another_implementation(impl: str) -> None:
    reason = unsupported_reason(impl, device="cpu", dtype=torch.bfloat16, head_dim=64)
    assert reason is not None
    assert reason.endswith("needs a CUDA device, got cpu")
    with pytest.raises(UnsupportedAttention) as raised:
        attention(*(x.bfloat16() for x in tensors()), impl=impl)
    assert str(raised.value) == reason
    assert isinstance(raised.value, ValueError)


def test_a_cuda_device_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    reason = unsupported_reason("triton", device="cuda", dtype=torch.bfloat16, head_dim=64)
    assert reason == "triton needs a CUDA device, got a machine without one"


@pytest.mark.parametrize(
    ("impl", "case", "reason"),
    [
        ("triton", {"capability": (7, 5)}, "triton needs compute capability 8.0 or newer for bfloat16, got 7.5"),
        ("triton", {"capability": (7, 5), "dtype": torch.float16}, None),
        (
            "triton",
            {"capability": (7, 0), "dtype": torch.float16},
            "triton needs compute capability 7.5 or newer for float16, got 7.0",
        ),
        (
            "triton",
            {"capability": (7, 5), "dtype": torch.float16, "head_dim": 160},
            "triton needs a head dim of at most 128 on compute capability 7.5, got 160",
        ),
        ("triton_reduced", {"capability": (10, 0)}, "triton_reduced needs compute capability 9.0, got 10.0"),
        ("triton_reduced", {"dtype": torch.float32}, "triton_reduced needs bfloat16, float16, got float32"),
        (
            "triton_reduced",
            {"head_dim": 80},
            "triton_reduced needs a head dim of at most 128 that is loaded in one piece, such as 64 or 128, got 80",
        ),
        ("triton_reduced", {}, None),
        ("triton_one_loop", {}, None),
        ("triton", {"dtype": torch.float64}, "triton needs float32, bfloat16, float16, got float64"),
        ("sdpa_flash", {"dtype": torch.float32}, "sdpa_flash needs bfloat16, float16, got float32"),
        ("sdpa_flash", {"return_lse": True}, "sdpa_flash does not return the logsumexp, got return_lse=True"),
        (
            "sdpa_cudnn",
            {"is_causal": True, "q_len": 8, "k_len": 4},
            "sdpa_cudnn needs a key for every query, got 8 causal queries and 4 keys",
        ),
        ("sdpa_efficient", {"grouped": True}, "sdpa_efficient needs as many key heads as query heads"),
        ("flex", {"head_dim": 8}, "flex needs a head dim of at least 16, got 8"),
        ("triton", {}, None),
        ("flex", {}, None),
        ("sdpa_cudnn", {}, None),
    ],
)
def test_reasons_on_a_cuda_device(
    monkeypatch: pytest.MonkeyPatch, impl: str, case: dict[str, Any], reason: str | None
) -> None:
    capability = case.pop("capability", (9, 0)) if "capability" in case else (9, 0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)  # Triton too, which macOS has not
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    case = {"dtype": torch.bfloat16, "head_dim": 64, **case}
    assert unsupported_reason(impl, device="cuda", **case) == reason


def test_kernels_for_nvidias_gpus_are_not_tried_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """ROCm calls its devices `cuda`; an MI300X says 9.4, which would be taken for a Hopper."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 4))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.version, "hip", "6.4.43")
    case: dict[str, Any] = {"device": "cuda", "dtype": torch.bfloat16, "head_dim": 64}
    for impl in ("triton", "triton_atomics", "triton_reduced", "triton_one_loop"):
        assert str(unsupported_reason(impl, **case)).endswith(
            "for which its kernels and tiles are made, got ROCm 6.4.43"
        )
    assert unsupported_reason("sdpa_flash", **case) is None
    head = heads.unsupported_reason("triton", device="cuda", dtype=torch.bfloat16)
    assert head == "the head triton needs a GPU of NVIDIA, for which its tiles are made, got ROCm 6.4.43"


def test_interpreted_kernels_are_never_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    reason = unsupported_reason("triton", device="cuda", dtype=torch.bfloat16, head_dim=64)
    assert reason == "triton needs compiled kernels, got TRITON_INTERPRET in the environment"


def test_all_names_are_there_and_some_run_here() -> None:
    assert set(IMPLEMENTATIONS) >= {
        "naive", "reference", "tiled", "triton", "triton_atomics", "compiled",
        "sdpa", "sdpa_math", "sdpa_flash", "sdpa_cudnn", "sdpa_efficient", "flex",
    }  # fmt: skip
    assert {"naive", "reference", "tiled", "sdpa", "sdpa_math", "sdpa_flash"} <= set(ON_CPU)


@pytest.mark.parametrize("impl", [name for name in ON_CPU if name != "compiled"])
def test_a_default_scale_and_no_logsumexp(impl: str) -> None:
    q, k, v = tensors()
    o = attention(q, k, v, impl=impl, is_causal=True)
    assert isinstance(o, torch.Tensor)
    expected = attention(q.double(), k.double(), v.double(), scale=16**-0.5, is_causal=True)
    torch.testing.assert_close(o.double(), expected, rtol=0, atol=1e-5)


def test_importing_the_contract_imports_no_triton_and_no_compiler() -> None:
    code = (
        "import sys, stepbench.kernels.api as api, torch;"
        "api.unsupported_reason('triton', device='cpu', dtype=torch.bfloat16, head_dim=64);"
        "print([name for name in ('triton', 'torch._inductor.compile_fx') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


NEW_IMPLEMENTATION = """
from stepbench.kernels.contract import Implementation

def attention(q, k, v, *, is_causal, scale, return_lse):
    return v.mean(dim=-2, keepdim=True).expand_as(q)

IMPLEMENTATION = Implementation(attention, lambda case: "mean has no mask" if case.is_causal else None)
"""


def test_a_new_implementation_is_one_file_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mean_attention.py").write_text(NEW_IMPLEMENTATION)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(api.IMPLEMENTATIONS, "mean", "mean_attention:IMPLEMENTATION")
    q, k, v = tensors(k=(2, 4, 6, 16))
    torch.testing.assert_close(attention(q, k, v, impl="mean")[0, 0, 0], v[0, 0].mean(dim=0))
    assert unsupported_reason("mean", device="cpu", dtype=q.dtype, head_dim=16, is_causal=True) == "mean has no mask"
    with pytest.raises(UnsupportedAttention, match="mean has no mask"):
        attention(q, k, v, impl="mean", is_causal=True)
