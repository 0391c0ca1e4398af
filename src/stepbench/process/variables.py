"""The environment of a measuring process: an allow-list, and the variables by which numbers change.

What stands in a user's environment is not in a record, so it must not be in a number. Variables that say where things
are pass; those of the libraries that measure pass too, and are part of the fingerprint; the others do not, unless
`STEPBENCH_PASS` names them.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping

from stepbench.measure import devices
from stepbench.process import allocator

# Neither the number of threads, which belongs to the protocol, nor that a compiled cell runs eagerly. The last two are
# ours.
IGNORED = (
    "OMP_NUM_THREADS",
    "OMP_THREAD_LIMIT",
    "MKL_NUM_THREADS",
    "TORCHDYNAMO_DISABLE",
    "TORCH_COMPILE_DISABLE",
    "TORCH_DEVICE_BACKEND_AUTOLOAD",
    "TORCHINDUCTOR_AUTOGRAD_CACHE_ALLOW_CUSTOM_AUTOGRAD",
)
# Where things are, who runs this, and which devices it may use; names that end in _ are beginnings.
NEUTRAL = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "TEMP", "TMP", "TZ", "LANG", "LANGUAGE", "LC_",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "LIBRARY_PATH", "CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "CC", "CXX",
    "DYLD_", "SDKROOT", "PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONWARNINGS",
    "COVERAGE_", "VIRTUAL_ENV", "CONDA_", "XDG_", "CUDA_HOME", "CUDA_PATH", "CUDA_ROOT", "CUDA_CACHE_", "ROCM_HOME",
    "ROCM_PATH", "TRITON_CACHE_DIR", "TRITON_LIBCUDA_PATH", "TRITON_HOME", "TRITON_PTXAS_PATH", "TORCH_HOME",
    "TORCHINDUCTOR_CACHE_DIR", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "MASTER_", "SLURM_", "SLURMD_",
    "APPTAINER_", "SINGULARITY_", "STEPBENCH_", *devices.HIDING, *devices.ENVIRONMENT,
)  # fmt: skip
# Of the libraries that compute: each may change a number.
CHANGING = (
    "TORCH_", "TORCHINDUCTOR_", "TORCHDYNAMO_", "PYTORCH_", "CUDA_", "CUBLAS_", "CUBLASLT_", "CUDNN_", "NVIDIA_TF32_",
    "NCCL_", "GLOO_", "TRITON_", "OMP_", "KMP_", "GOMP_", "MKL_", "DNNL_", "ONEDNN_", "HSA_", "HIP_", "ROCBLAS_",
    "HIPBLASLT_", "MIOPEN_", "RCCL_", "SYCL_", "ZE_", "GLIBC_TUNABLES", "MALLOC_",
)  # fmt: skip
_QUICKER = {
    # Or torch searches every installed package for backends that this project does not measure: 0.2 s.
    "TORCH_DEVICE_BACKEND_AUTOLOAD": "0",
    # Or each process traces and partitions a graph with the chunked head anew, a gradient of our own: 3 s. The kept
    # graph is found by its operators, those of that gradient too.
    "TORCHINDUCTOR_AUTOGRAD_CACHE_ALLOW_CUSTOM_AUTOGRAD": "1",
}
NAMING_MORE = "STEPBENCH_PASS"  # names of more variables, with commas between them


def changing(found: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables that reach a measuring process and may change a number; malloc's are ours, not these."""
    found = os.environ if found is None else found
    kept = (name for name in found if _is_among(name, CHANGING) and not _is_among(name, (*NEUTRAL, *IGNORED)))
    own = allocator.VARIABLE, *(name for name in found if name.startswith("MALLOC_"))
    return {name: found[name] for name in sorted(kept) if name not in own}


def environment(found: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a measuring process."""
    found = os.environ if found is None else found
    named = tuple(name.strip() for name in found.get(NAMING_MORE, "").split(","))
    allowed = {name: value for name, value in found.items() if _is_among(name, (*NEUTRAL, *CHANGING)) or name in named}
    kept = {name: value for name, value in allowed.items() if name not in IGNORED}
    if (folder := _quotable_folder()) is not None:
        kept["TMPDIR"] = folder
    return {**allocator.environment(kept), **devices.ENVIRONMENT, **_QUICKER}


def _quotable_folder() -> str | None:
    """Return another folder for temporary files, or None where the usual one will do.

    torch.compile does not quote the names of its files, which are there, when it calls the C++ compiler.
    """
    if not re.search(r"\s", tempfile.gettempdir()):
        return None
    return next((each for each in ("/tmp", "/var/tmp") if os.access(each, os.W_OK)), None)  # noqa: S108


def _is_among(name: str, names: tuple[str, ...]) -> bool:
    return any(name.startswith(each) if each.endswith("_") else name == each for each in names)
