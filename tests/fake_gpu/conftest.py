"""The pretended machines: with NVML alone in every test run, whole in `make test-fake-gpu`."""

import shutil

import pytest
from tests.fake_gpu import libraries
from tests.fake_gpu.machine import ROOT, Machine

BESIDE = ROOT / ".venv-fake-gpu"  # which `make test-fake-gpu` fills


@pytest.fixture(scope="session")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Return a machine whose NVML is pretended."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc builds the pretended NVML, and there is none")
    folder = tmp_path_factory.mktemp("nvml")
    return Machine(libraries.build_nvml(folder / "lib"), folder)


@pytest.fixture(scope="session")
def cuda(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """Return a machine whose GPUs torch and Triton can use; for a CUDA build of torch."""
    if not (BESIDE / "bin" / "python").exists():
        pytest.fail("these tests need a CUDA build of torch beside .venv: `make test-fake-gpu`")
    (site,) = BESIDE.glob("lib/python*/site-packages")
    folder = tmp_path_factory.mktemp("cuda")
    made = libraries.build_all(folder / "lib", site, BESIDE / "headers" / "nvidia" / "cu13" / "include")
    return Machine(made, folder, str(BESIDE / "bin" / "python"))
