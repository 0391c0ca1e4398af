"""Launches of attention kernels on pretended GPUs: plans, descriptors, buffers are real, the kernels do nothing."""

import json
from pathlib import Path

import pytest
from tests.fake_gpu.machine import H100, LAPTOP, RTX_5090, T4, Machine
from tests.fake_gpu.test_cells import bench, measure

__all__ = ["bench"]

pytestmark = pytest.mark.fake_gpu

LAUNCH = """
import json, sys
import torch
from stepbench.kernels.api import attention
torch.autograd.set_multithreading_enabled(False)  # or the backward pass is in a thread that a tracer does not see
for impl, dtype, head_dim in json.loads(sys.argv[1]):
    options = {"device": "cuda", "dtype": getattr(torch, dtype), "requires_grad": True}
    q = torch.randn(1, 4, 64, head_dim, **options)
    k, v = (torch.randn(1, 2, 64, head_dim, **options) for _ in range(2))
    o, lse = attention(q, k, v, impl=impl, is_causal=True, return_lse=True)
    found = torch.autograd.grad((o.float().sum() + lse.sum(),), (q, k, v))
    torch.cuda.synchronize()
    assert (o.shape, lse.shape) == (q.shape, q.shape[:3]), (impl, dtype, head_dim)
    assert [x.shape for x in found] == [x.shape for x in (q, k, v)], (impl, dtype, head_dim)
"""
LAUNCHED = {
    T4: [("triton", "float16", 64)],
    LAPTOP: [("triton", "bfloat16", 80), ("triton_atomics", "bfloat16", 64), ("triton", "float32", 64)],
    H100: [("triton", "bfloat16", 64), ("triton_one_loop", "bfloat16", 128), ("triton_reduced", "bfloat16", 64)],
    RTX_5090: [("triton", "bfloat16", 64), ("triton_atomics", "float32", 80)],
}


@pytest.mark.parametrize("gpu", LAUNCHED, ids=lambda gpu: gpu.split("|")[0])
def test_both_passes_are_launched_with_each_architectures_tiles(cuda: Machine, gpu: str) -> None:
    done = cuda.run("-c", LAUNCH, json.dumps(LAUNCHED[gpu]), gpus=(gpu,))
    assert done.returncode == 0, done.stderr


def test_queries_at_the_end_of_longer_keys_have_torchs_lower_right_mask(cuda: Machine) -> None:
    script = """
import torch
from stepbench.kernels.api import attention
q, k = (torch.randn(1, 2, n, 64, device="cuda", dtype=torch.bfloat16) for n in (64, 96))
for impl in ("sdpa_flash", "sdpa_efficient"):
    assert attention(q, k, k, impl=impl, is_causal=True).shape == q.shape
"""
    done = cuda.run("-c", script, gpus=(H100,))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", ["tf32", "bf16"])
def test_what_a_t4_does_not_compute_in_is_unsupported(cuda: Machine, bench: Path, dtype: str) -> None:
    record = measure(cuda, bench, "ceilings", f"operation=matmul,dtype={dtype}", T4)
    assert (record["status"], record["reason"].startswith(f"{dtype} needs ")) == ("unsupported", True), record["reason"]


def test_tf32_is_computed_where_there_is_some(cuda: Machine, bench: Path) -> None:
    script = """
from stepbench.models import precision
assert precision.precision_reason("tf32", "cuda") is None
assert "got cpu" in precision.precision_reason("tf32", "cpu")
"""
    done = cuda.run("-c", script, gpus=(LAPTOP,))
    assert done.returncode == 0, done.stderr


def test_under_wsl_the_allocator_refuses_what_is_not_free(cuda: Machine) -> None:
    """Another process holds half of the memory, which the driver would give all the same."""
    script = """
import platform
import torch
from stepbench.measure import memory
platform.release = lambda: "6.6.87.2-microsoft-standard-WSL2"
torch.cuda.mem_get_info = lambda: (4 * 2**30, 8 * 2**30)
memory.keep_to_device("cuda")
torch.empty(3 * 2**30, dtype=torch.uint8, device="cuda")
try:
    torch.empty(5 * 2**30, dtype=torch.uint8, device="cuda")
except torch.OutOfMemoryError:
    print("refused")
"""
    done = cuda.run("-c", script, gpus=(LAPTOP,))
    assert done.stdout == "refused\n", done.stderr


@pytest.mark.parametrize("gpus", [(T4,), (RTX_5090, RTX_5090)], ids=["T4", "2 × RTX 5090"])
def test_a_plan_from_a_description_is_the_one_on_the_machine_itself(
    cuda: Machine, bench: Path, gpus: tuple[str, ...]
) -> None:
    """On a login node without a GPU: the same cells and estimates, although a T4's are other cells."""
    settings = ("--config", "machine=node")
    own = cuda.run("-m", "stepbench", "plan", "--json", *settings, gpus=gpus, cwd=bench)
    done = cuda.run("-m", "stepbench", "describe", "node", gpus=gpus, cwd=bench)
    assert (own.returncode, done.returncode) == (0, 0), own.stderr + done.stderr
    found = json.loads((bench / "machines" / "node.json").read_text(encoding="utf-8"))
    names, memory, capabilities, _ = zip(*(gpu.split("|") for gpu in gpus), strict=True)
    assert (found["device_names"], found["capabilities"]) == (list(names), list(capabilities))
    assert found["device_memory_bytes"] == int(memory[0]) * 2**20
    elsewhere = cuda.run("-m", "stepbench", "plan", "--json", *settings, cwd=bench)
    assert elsewhere.returncode == 0, elsewhere.stderr
    assert (len(json.loads(elsewhere.stdout)) > 50, elsewhere.stdout) == (True, own.stdout)
    # The plan of a described machine alone says that there is no price.
    no_price = "; no cost, as config.yaml has no price of node under `prices`"
    assert elsewhere.stderr.replace(no_price, "") == own.stderr
