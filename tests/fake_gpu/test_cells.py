"""Cells and commands on pretended GPUs: torch's and Triton's own code for CUDA runs, the kernels do nothing."""

import gzip
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.fake_gpu.machine import H100, LAPTOP, ROOT, RTX_5090, T4, V100, Machine

pytestmark = pytest.mark.fake_gpu


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """Return a folder with a copy of config.yaml in which cells are measured."""
    for name in ("config.yaml", "config.schema.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def measure(cuda: Machine, bench: Path, experiment: str, cell: str, *gpus: str, **more: str) -> dict[str, Any]:
    """Measure a cell and return the content of its record."""
    quick = ["--config", "protocol={gpu: {warmup_steps: 1, measured_steps: 2}}"]
    done = cuda.run("-m", "stepbench", "measure", experiment, cell, *quick, gpus=gpus, cwd=bench, **more)
    assert "Traceback" not in done.stderr, done.stderr
    found = sorted(bench.glob(f"results/*/{experiment}/*.json"), key=lambda path: path.stat().st_mtime_ns)
    assert found, done.stderr
    text = json.loads(found[-1].read_text(encoding="utf-8"))
    return {**text.get("record", text), "file": found[-1], "output": done.stdout}


def ask(cuda: Machine, *gpus: str, **more: str) -> dict[str, Any]:
    """Return the devices as `stepbench.measure.devices` finds them."""
    script = """
import dataclasses, json
from stepbench.measure import devices
print(json.dumps(dataclasses.asdict(devices.found())))
"""
    done = cuda.run("-c", script, gpus=gpus, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# -- which devices there are -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("visible", [None, "0", "1", "1,0", "GPU-b", "GPU-a0", "0,7", "01", " 1"])
def test_ordinals_are_those_of_the_bus_and_uuids_those_of_the_driver(cuda: Machine, visible: str | None) -> None:
    """CUDA alone would number the faster GPU first."""
    slow, fast = f"{T4}|GPU-a0000000-0000-0000-0000-000000000001", f"{H100}|GPU-b0000000-0000-0000-0000-000000000002"
    more = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    found = ask(cuda, slow, fast, **more)
    names = {None: "TH", "0": "T", "1": "H", "1,0": "HT", "GPU-b": "H", "GPU-a0": "T", "0,7": "T", "01": "H", " 1": "H"}
    assert "".join("T" if "T4" in each["name"] else "H" for each in found["devices"]) == names[visible]
    for each in found["devices"]:
        assert each["uuid"] == ("a" if "T4" in each["name"] else "b") + "0000000-0000-0000-0000-00000000000" + (
            "1" if "T4" in each["name"] else "2"
        )
        assert each["problem"] is None


def test_a_slice_has_its_own_name_and_memory(cuda: Machine) -> None:
    mig = "NVIDIA H100 80GB HBM3 MIG 1g.10gb|9856|9.0|16|MIG-c78853af-8b9e-4f3c-9f6c-07d024b1bb11"
    found = ask(cuda, f"{H100}|GPU-c08d91cb-e324-655c-71ba-757095644500", mig)
    assert [(each["name"], each["memory_bytes"]) for each in found["devices"]] == [(mig.split("|")[0], 9856 * 2**20)]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"FAKE_CUDA_OLD_DRIVER": "1"}, "too old"),
        ({"FAKE_CUDA_NO_IMAGE": "1"}, "no kernel image is available"),
        ({"FAKE_CUDA_GPUS": "", "FAKE_NVML_FAIL": "nvmlInit=18"}, "NVML/RM version mismatch"),
        ({"CUDA_VISIBLE_DEVICES": "MIG-none"}, "names none of them"),
    ],
)
def test_a_gpu_that_torch_cannot_use_is_told_before_anything_is_planned(
    cuda: Machine, bench: Path, more: dict[str, str], sentence: str
) -> None:
    done = cuda.run("-m", "stepbench", "plan", gpus=(V100,), cwd=bench, **more)
    assert (done.returncode, done.stdout) == (2, "")
    assert sentence in done.stderr
    assert "set `device: cpu`" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_nvml_the_gpu_is_measured_all_the_same(cuda: Machine, bench: Path) -> None:
    record = measure(cuda, bench, "ceilings", "operation=copy", LAPTOP, FAKE_NVML_FAIL="nvmlInit=12")
    assert record["status"] == "ok", record["reason"]
    assert record["environment"]["device_name"] == "NVIDIA GeForce RTX 4060 Laptop GPU"
    assert record["environment"]["device_memory_bytes"] == 8188 * 2**20
    assert record["environment"]["driver"] is None


# -- times and memory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["sdpa_flash", "triton"])
def test_attention_is_timed_as_the_device_works_and_not_as_the_host_launches(
    cuda: Machine, bench: Path, implementation: str
) -> None:
    """Each pretended kernel takes 20 µs; launching from Python takes the host longer."""
    cell = f"implementation={implementation},seq=512,head_dim=64,dtype=bf16"
    record = measure(cuda, bench, "attention", cell, H100, FAKE_KERNEL_US="20")
    assert record["status"] == "ok", record["reason"]
    for name in ("forward", "backward", "forward_backward"):
        assert record["scalars"][f"{name}_held_ratio"] == 1
        assert min(record["samples"][f"{name}_host_s"]) > 0
        for seconds in record["samples"][f"{name}_s"]:
            assert seconds == pytest.approx(round(seconds / 20e-6) * 20e-6, abs=3e-6)
    # Four inputs and four gradients of 64 KiB, the output and a few rows; neither the flush of 256 MiB nor cuBLAS' 32.
    assert 8 * 2**16 <= record["scalars"]["peak_memory_bytes"] < 2**21


@pytest.mark.parametrize(("gpu", "dtype"), [(RTX_5090, "bf16"), (T4, "fp16")], ids=["RTX 5090", "T4"])
def test_the_gpu_check_runs_every_part_and_keeps_what_each_said(
    cuda: Machine, bench: Path, gpu: str, dtype: str
) -> None:
    """With hardly any time, so that every part is cut short, and without tests to find."""
    script = """
import sys
from stepbench.cli import gpu_check
gpu_check.BUDGET_S, gpu_check.TEST_S, gpu_check.TUNE_S, gpu_check.KERNELS_S = 1.0, 20.0, 1.0, 1.0
gpu_check.LAST_WORDS_S = 0.1
sys.exit(gpu_check.main())
"""
    done = cuda.run("-c", script, gpus=[gpu, gpu], cwd=bench)
    assert done.returncode == 1, done.stderr
    (file,) = bench.glob("results/bundles/*.json.gz")
    packed = json.loads(gzip.decompress(file.read_bytes()))
    assert list(packed["parts"]) == ["devices", "tests", "tuning", "kernels", "attention", "grid"]
    assert [name for name, part in packed["parts"].items() if part["failed"]] == ["tests", "tuning", "kernels"]
    assert packed["kernels"] == {"on": None, "timed": []}
    assert packed["tiles"]["machine"] is None
    name = gpu.partition("|")[0]
    assert any(name in line for line in packed["parts"]["devices"]["output"])
    assert len(packed["left"]) > 150
    asked = [path for path in packed["left"] if "/attention/" in path and "dtype~fp32" not in path]
    assert asked
    assert all(f"dtype~{dtype}" in path for path in asked)
    assert packed["summary"].startswith(f"2 × {name}, driver 580.95.05, torch 2.")


# -- cells -------------------------------------------------------------------------------------------------------------


CELLS = {
    "ceilings": "operation=matmul,dtype=bf16",
    "end_to_end": "size=nano,context=64,batch=1,precision=bf16,attention=triton",
    "ladder": "size=nano,context=64,batch=1,rung=triton_head",
    "warmup": "size=nano,warmup=1",
    "numerics": "case=autocast_bf16",
    "attention": "implementation=naive,seq=256,head_dim=64,dtype=fp16",
    "memory": "source=measured,size=nano,context=64,batch=1",
    "checkpointing": "source=measured,size=nano,context=64,batch=1,groups=2",
    "fits": "source=measured,size=nano,context=64,memory_mib=256",
    "encoder_decoder": "preset=3.5M,data=memory,megabytes=1,ranks=1,batch=4,context=32,steps=2",
}
ON_RANKS = {
    "collectives": "operation=all_reduce,backend=nccl,ranks=2,payload_bytes=4096",
    "data_parallel": "size=nano,context=16,batch=1,strategy=bucketed",
    "optimizer_sharding": "source=measured,size=nano,context=16,batch=1,variant=sharded_broadcast",
    "fsdp": "source=measured,size=nano,context=16,batch=1,variant=fsdp",
}


@pytest.mark.parametrize("experiment", CELLS)
def test_a_cell_of_each_experiment_is_measured_on_a_gpu(cuda: Machine, bench: Path, experiment: str) -> None:
    record = measure(cuda, bench, experiment, CELLS[experiment], LAPTOP)
    assert record["status"] == "ok", record["reason"]
    assert record["environment"]["gpus_during"][0]["samples"] > 0


@pytest.mark.parametrize("experiment", ON_RANKS)
def test_a_cell_of_each_experiment_on_ranks_is_measured_through_nccl(
    cuda: Machine, bench: Path, experiment: str
) -> None:
    record = measure(cuda, bench, experiment, ON_RANKS[experiment], RTX_5090, RTX_5090)
    assert record["status"] == "ok", record["reason"]
    assert len(record["environment"]["gpus_during"]) == 2


def test_a_partner_that_does_not_fit_beside_a_strategy_costs_only_itself(cuda: Machine, bench: Path) -> None:
    """Its own step takes more than half of 1.2 GiB; bucketed would then be timed in turn with torch's DDP."""
    small = "NVIDIA of 1228 MiB|1228|8.9|24"
    cell = "size=micro,context=128,batch=1,strategy=bucketed,bucket_mib=5"
    record = measure(cuda, bench, "data_parallel", cell, small, small)
    assert record["status"] == "ok", record["reason"]
    assert record["samples"]["step_s"]
    assert ("paired_s" in record["samples"]) == ("beside_reason" not in record["details"])
    assert "do not fit" in record["details"]["beside_reason"]


def test_a_profile_without_cupti_is_refused_with_what_to_do(cuda: Machine, bench: Path) -> None:
    record = measure(cuda, bench, "profile", "size=nano,context=64,batch=1", LAPTOP)
    assert (record["status"], "saw no kernel" in record["reason"]) == ("unsupported", True)


def test_under_nsys_the_steps_run_between_two_calls_of_the_profiler(cuda: Machine, bench: Path) -> None:
    """In a process of its own, as nsys starts it; the device is empty when it begins."""
    script = """
import json, subprocess, sys
from pathlib import Path
from stepbench.measure.measurement import Setting
from stepbench.workloads.spec import StepSpec
from stepbench.experiments.profile.cell import Cell
size = {"d_model": 64, "d_ff": 128, "layers": 1, "heads": 2}
protocol = {"warmup_steps": 1, "measured_steps": 1, "seed": 0, "threads": 1}
setting = Setting("cuda", protocol, {"vocabulary": 50, "size": size})
spec = StepSpec.of(Cell("nano", 16, batch=1), setting)
order = Path("order.json")
order.write_text(json.dumps({"setting": setting.plain(), "spec": spec.plain()}))
sys.exit(subprocess.run([sys.executable, "-m", "stepbench.workloads.profiled", str(order)]).returncode)
"""
    done = cuda.run("-c", script, gpus=[LAPTOP], cwd=bench)
    assert done.returncode == 0, done.stderr


def test_a_gpu_that_the_driver_loses_during_a_cell_leaves_a_record(cuda: Machine, bench: Path) -> None:
    """torch still computes; from the fourth second on NVML answers that the GPU is lost, whatever is asked."""
    refused = bench / "refused"
    lose = threading.Timer(4.0, refused.write_text, ["nvmlDeviceGetHandleByUUID=15,nvmlDeviceGetCount=15"])
    lose.start()
    try:
        record = measure(cuda, bench, "ceilings", "operation=copy", LAPTOP, FAKE_NVML_FAIL=f"@{refused}")
    finally:
        lose.cancel()
        lose.join()
    assert record["status"] == "ok", record["reason"]


def test_a_step_that_does_not_fit_is_not_started(cuda: Machine, bench: Path) -> None:
    record = measure(cuda, bench, "end_to_end", "size=xl,context=256,precision=bf16", LAPTOP)
    assert (record["status"], record["kind"]) == ("oom", "predicted_oom")
    assert "but the device has 8.0 GiB" in record["reason"]


def test_variables_that_change_numbers_are_in_the_record(cuda: Machine, bench: Path) -> None:
    record = measure(cuda, bench, "ceilings", "operation=copy", LAPTOP, CUDA_LAUNCH_BLOCKING="1", EDITOR="vi")
    assert record["status"] == "ok", record["reason"]
    assert record["protocol"]["environment_variables"] == {"CUDA_LAUNCH_BLOCKING": "1"}
    assert record["fingerprint"]["machine"]["variables"] == {"CUDA_LAUNCH_BLOCKING": "1"}


@pytest.mark.parametrize("rung", ["captured", "cuda_graphs"])
def test_a_step_in_a_cuda_graph_is_captured_and_replayed(cuda: Machine, bench: Path, rung: str) -> None:
    """Nothing in it waits for the device, which the pretended runtime refuses while it captures."""
    more = ["--config", "protocol={gpu: {warmup_steps: 5, measured_steps: 2}}"]
    cell = f"size=nano,context=64,batch=1,rung={rung}"
    done = cuda.run("-m", "stepbench", "measure", "ladder", cell, *more, gpus=[RTX_5090], cwd=bench)
    (file,) = bench.glob("results/*/ladder/*.json")
    text = json.loads(file.read_text(encoding="utf-8"))
    record = text.get("record", text)
    assert record["status"] == "ok", (record["reason"], done.stderr)
    assert (
        record["details"]["step"]["implementation"] == {"captured": "captured", "cuda_graphs": "compiled_graphs"}[rung]
    )
    assert record["scalars"]["step_energy_joules"] > 0


def test_a_training_step_is_measured(cuda: Machine, bench: Path) -> None:
    record = measure(cuda, bench, "end_to_end", "size=nano,context=64,batch=1", RTX_5090)
    assert record["status"] == "ok", record["reason"]
    assert record["file"].parts[-3] == "nvidia-geforce-rtx-5090-1x"
    assert record["scalars"]["peak_memory_bytes"] > 4 * 4 * 2_000_000
    # The pretended GPU takes 70 W whatever it does.
    scalars = record["scalars"]
    step_s = scalars["energy_region_s"] / scalars["energy_steps"]
    assert scalars["step_energy_joules"] == pytest.approx(70 * step_s, rel=0.1)
    assert record["protocol"]["energy_counter"] == "NVML's counter of the GPU"
    (device,) = record["environment"]["devices"]
    assert (device["capability"], device["power_limit_watts"], device["ecc"]) == ("12.0", 700.0, True)
