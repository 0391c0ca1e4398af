"""Builds the pretended libraries with gcc: NVML alone, or all that a CUDA build of torch loads."""

from __future__ import annotations

import collections
import importlib.util
import re
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
PACKAGES = "packages"  # in the folder of the libraries: belongs to Python's path, before NVIDIA's own
NVML, RUNTIME, DRIVER, NCCL = "libnvidia-ml.so.1", "libcudart.so.13", "libcuda.so.1", "libnccl.so.2"
# Libraries of which torch needs that they are there: each function returns 0. The longer prefix comes first.
STUBS = {
    "libcublasLt.so.13": "cublasLt",
    "libcublas.so.13": "cublas",
    "libcusparseLt.so.0": "cusparseLt",
    "libcusparse.so.12": "cusparse",
    "libcufft.so.12": "cufft",
    "libcurand.so.10": "curand",
    "libcusolver.so.12": "cusolver",
    "libcudnn.so.9": "cudnn",
    NCCL: "nccl",
    "libcupti.so.13": "cupti",
    "libcufile.so.0": "cuFile",
    "libnvrtc.so.13": "nvrtc",
    "libnvshmem_host.so.3": r"\w*nvshmem",
    "libnvJitLink.so.13": "nvJitLink",
}
ANSWERS = {
    "cudnnGetVersion": "unsigned long cudnnGetVersion(void) { return 92000; }",
    "cudnnCreate": "int cudnnCreate(void **h) { *h = (void *)64; return 0; }",
    "cudnnGetErrorString": 'const char *cudnnGetErrorString(int r) { return "an error of the pretended cuDNN"; }',
    "cublasCreate_v2": "int cublasCreate_v2(void **h) { *h = (void *)64; return 0; }",
    "cublasLtCreate": "int cublasLtCreate(void **h) { *h = (void *)64; return 0; }",
    "cublasLtMatmulAlgoGetHeuristic": (
        "int cublasLtMatmulAlgoGetHeuristic(void *a, void *b, void *c, void *d, void *e, void *f, void *g, int n, "
        "void *r, int *found) { *found = 1; return 0; }"
    ),
    "cuptiGetVersion": "int cuptiGetVersion(unsigned *v) { *v = 130000; return 0; }",
    "cuptiGetTimestamp": (
        "#include <time.h>\nint cuptiGetTimestamp(unsigned long long *t) { struct timespec s; "
        "clock_gettime(CLOCK_REALTIME, &s); *t = s.tv_sec * 1000000000ull + s.tv_nsec; return 0; }"
    ),
    "nvrtcVersion": "int nvrtcVersion(int *major, int *minor) { *major = 13; *minor = 0; return 0; }",
}


def build_nvml(folder: Path) -> Path:
    """Build the pretended NVML and return the folder to put into `LD_LIBRARY_PATH`."""
    folder.mkdir(parents=True, exist_ok=True)
    _compile(folder / NVML, (HERE / "nvml.c").read_text(encoding="utf-8"))
    return folder


def build_all(folder: Path, site: Path, headers: Path) -> Path:
    """Build everything that the CUDA build of torch in `site` loads; `headers` are those of its CUDA."""
    build_nvml(folder)
    needed, versions = _needed(site / "torch" / "lib")
    nccl = (HERE / "nccl.c").read_text(encoding="utf-8")
    for library in STUBS:
        names = sorted(needed.get(library, ()))
        text = nccl if library == NCCL else ""
        missing = (name for name in names if not re.search(rf"[ *]{name}\(", text))
        text += "\n".join(ANSWERS.get(name, f"long {name}() {{ return 0; }}") for name in missing)
        _compile(folder / library, text or "int nothing;", version=versions.get(library))
    # The compiler's part of the headers is in a package of its own; Triton brings it.
    triton = importlib.util.find_spec("triton")
    assert triton is not None
    assert triton.submodule_search_locations
    own = Path(triton.submodule_search_locations[0], "backends", "nvidia", "include")
    runtime = (HERE / "cudart.c").read_text(encoding="utf-8")
    _compile(folder / RUNTIME, runtime, f"-I{headers}", f"-I{own}", version="libcudart.so.13")
    _compile(folder / DRIVER, (HERE / "libcuda.c").read_text(encoding="utf-8"))
    # torch loads these from packages on Python's path where there are some, such as NVIDIA's own beside another torch.
    packages = folder / PACKAGES / "nvidia" / "cu13"
    packages.mkdir(parents=True)
    (packages / "lib").symlink_to(folder)
    return folder


def _needed(libraries: Path) -> tuple[dict[str, set[str]], dict[str, str]]:
    """Return the functions that torch's libraries ask of each stub, and the version that they ask for."""
    needed: dict[str, set[str]] = collections.defaultdict(set)
    versions: dict[str, str] = {}
    for library in sorted(libraries.glob("*.so*")):
        done = subprocess.run(["nm", "-D", "--undefined-only", library], capture_output=True, text=True, check=True)
        for line in done.stdout.splitlines():
            name, _, version = line.split()[-1].partition("@")
            found = next((stub for stub, prefix in STUBS.items() if re.match(prefix, name)), None)
            if found is not None:
                needed[found].add(name)
                if version := version.strip("@"):
                    versions[found] = version
    return needed, versions


def _compile(library: Path, text: str, *options: str, version: str | None = None) -> None:
    if version is not None:
        symbols = library.with_suffix(".map")
        symbols.write_text(f"{version} {{ global: *; }};\n", encoding="utf-8")
        options = (*options, f"-Wl,--version-script={symbols}")
    command = ["gcc", "-shared", "-fPIC", "-O1", "-w", f"-I{HERE}", f"-Wl,-soname,{library.name}", "-x", "c", "-"]
    subprocess.run([*command, "-o", library, *options, "-ldl", "-lpthread"], input=text, text=True, check=True)
