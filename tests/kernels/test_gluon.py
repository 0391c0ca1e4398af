"""The experimental forward kernel in Gluon: what it compiles to for sm_90, and on such a GPU what it computes."""

import re
import subprocess
import sys
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton")


from stepbench.kernels.triton import compiling  # noqa: E402


def source(dtype: torch.dtype) -> Any:
    """Describe the kernel as a launch specialises it, with a single query head for a key head."""
    from triton.experimental.gluon._runtime import GluonASTSource

    from stepbench.kernels.triton import gluon_forward as gluon

    short = {torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]
    constants = gluon.constants(dtype)
    tiles = {"q_tiles": gluon.ROWS, "k_tiles": gluon.COLUMNS, "v_tiles": gluon.COLUMNS}
    signature: dict[str, Any] = {
        name: f"tensordesc<{short}[{rows}, {gluon.HEAD_DIM}],{gluon.layout_of(rows, dtype)!r}>"
        for name, rows in tiles.items()
    }
    signature |= {"o": f"*{short}", "lse": "*fp32", "qk_scale": "fp32"}
    signature |= dict.fromkeys(("heads", "group", "q_len", "k_len", "offset"), "i32")
    names = gluon.forward_kernel.arg_names
    signature = {name: signature.get(name, "constexpr") for name in names}
    aligned = [["tt.divisibility", 16]]
    attributes = {(names.index(name),): aligned for name in ("o", "lse", "q_len", "k_len")}
    return GluonASTSource(gluon.forward_kernel, signature, constants, attributes)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_it_compiles_for_hopper_without_a_spill(dtype: torch.dtype) -> None:
    """And in the order that makes it worth while: products are under way during the exponentials."""
    if not triton.__version__.startswith("3.7"):
        pytest.skip("Gluon changes from version to version; the kernel is of 3.7")
    compiled = compiling.compile_source(source(dtype), "sm_90", {"num_warps": 4}, name="gluon")
    assert compiled.spill_bytes == 0
    assert not compiled.serialized
    assert set(compiled.instructions) == {"wgmma"}
    assert compiled.shared_bytes <= compiling.SHARED_BYTES["sm_90"][0]
    assert re.search(r"\bUSETMAXREG", compiled.sass)  # groups and producer divide the registers
    order = "".join(
        {"HGMMA": "p", "MUFU": "e", "0x0": "0", "0x1": "1"}[match[1] or match[2]]
        for match in re.finditer(r"\b(HGMMA|MUFU(?=\.EX2))|WARPGROUP\.DEPBAR\S* gsb0, (0x[01])", compiled.sass)
    )
    # Two groups, each with a loop without a mask and one with it: products asked for, one waited for, exponentials.
    assert len(re.findall(r"p{12}1e{34}0", order)) == 4, order


CHECK = """
import torch
from tests.testing.oracles import Problem
from stepbench.kernels.api import attention
from stepbench.kernels.triton import gluon_forward
for q_len, k_len, causal, dtype, key_heads in (
    (128, 128, True, "bfloat16", 4), (512, 512, False, "bfloat16", 4), (256, 704, True, "float16", 2),
    (2048, 2048, True, "bfloat16", 4),
):
    q, k, v = Problem(q_len, k_len, 128, dtype, causal, batch=2, heads=4, key_heads=key_heads, device="cuda").inputs()
    o, lse = gluon_forward.forward(q.detach(), k.detach(), v.detach(), 128**-0.5, causal)
    exact, exact_lse = attention(*(x.double() for x in (q, k, v)), is_causal=causal, return_lse=True)
    plain = attention(q, k, v, is_causal=causal, impl="naive")
    allowed = 2 * (plain.double() - exact).abs().max() + 4 * torch.finfo(q.dtype).eps * exact.abs().max()
    assert (o.double() - exact).abs().max() <= allowed, (q_len, k_len, causal, dtype)
    assert (lse.double() - exact_lse).abs().max() <= 1e-3, (q_len, k_len, causal, dtype)
"""


@pytest.mark.gpu
def test_it_computes_attention() -> None:
    """In a process of its own with a time limit: a barrier that is never met holds a kernel for ever."""
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("it is of compute capability 9.0")
    done = subprocess.run(
        [sys.executable, "-c", CHECK], capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_it_cannot_take_is_refused() -> None:
    from stepbench.kernels.triton import gluon_forward

    q = torch.zeros(1, 1, 128, 128, dtype=torch.bfloat16)
    for wrong, message in (
        (torch.zeros(1, 1, 100, 128), "lengths that are multiples of 128 and 64"),
        (torch.zeros(1, 1, 128, 64), "head dim of 128"),
        (torch.zeros(1, 1, 128, 128), "contiguous and of 16 bits"),
    ):
        with pytest.raises(ValueError, match=message):
            gluon_forward.forward(wrong, wrong, wrong, 1.0, False)
    with pytest.raises(ValueError, match="no fewer keys than queries"):
        gluon_forward.forward(torch.cat([q, q], 2), q, q, 1.0, True)
