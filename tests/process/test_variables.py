"""What of a user's environment reaches a measuring process, and what of it a fingerprint holds."""

import pytest

from stepbench.process import variables

OTHERS = {"PATH": "/bin", "HOME": "/root", "EDITOR": "vi", "AWS_SECRET_ACCESS_KEY": "x", "LC_ALL": "C"}


def test_only_what_is_allowed_passes() -> None:
    found = variables.environment({**OTHERS, "STEPBENCH_PASS": "EDITOR, SITE", "SITE": "1"})
    assert {"PATH", "HOME", "LC_ALL", "EDITOR", "SITE"} <= set(found)
    assert "AWS_SECRET_ACCESS_KEY" not in found


def test_a_measuring_process_knows_its_node_of_a_slurm_job() -> None:
    """Without the name of its node it started the follower of two nodes on itself."""
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_CONF": "/etc/slurm.conf",
        "SLURMD_NODENAME": "n1",
    }
    assert variables.environment({**OTHERS, **job}).items() >= job.items()


def test_gpus_are_numbered_by_the_bus_as_the_driver_does() -> None:
    assert variables.environment({"CUDA_DEVICE_ORDER": "FASTEST_FIRST"})["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


CHANGING = """
TORCH_ALLOW_TF32_CUBLAS_OVERRIDE NVIDIA_TF32_OVERRIDE CUDA_LAUNCH_BLOCKING NCCL_ALGO PYTORCH_ALLOC_CONF
PYTORCH_CUDA_ALLOC_CONF CUBLAS_WORKSPACE_CONFIG TORCHINDUCTOR_MAX_AUTOTUNE TRITON_DEFAULT_FP_FUSION OMP_PROC_BIND
"""
OF_NO_NUMBER = """
CUDA_VISIBLE_DEVICES CUDA_HOME CUDA_DEVICE_ORDER TRITON_CACHE_DIR TORCH_HOME TORCHINDUCTOR_CACHE_DIR HIP_VISIBLE_DEVICES
NVIDIA_VISIBLE_DEVICES OMP_NUM_THREADS TORCH_COMPILE_DISABLE GLIBC_TUNABLES MALLOC_ARENA_MAX SLURMD_NODENAME
"""


@pytest.mark.parametrize("name", CHANGING.split())
def test_what_may_change_a_number_passes_and_is_part_of_the_fingerprint(name: str) -> None:
    given = {**OTHERS, name: "1"}
    assert variables.environment(given)[name] == "1"
    assert variables.changing(given) == {name: "1"}


@pytest.mark.parametrize("name", OF_NO_NUMBER.split())
def test_where_things_are_and_what_never_passes_makes_no_record_stale(name: str) -> None:
    assert variables.changing({**OTHERS, name: "1"}) == {}


def test_a_measuring_process_finds_nothing_that_changes_numbers_where_the_user_set_nothing() -> None:
    assert variables.changing(variables.environment(OTHERS)) == {}
