"""What is installed: the same versions in constraints and lock, from public addresses, for the Pythons that we name."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCK = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
PAIRS = sorted((ROOT / "constraints").glob("torch-*.txt"))
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
HOSTS = {"pypi.org", "files.pythonhosted.org", "download.pytorch.org", "download-r2.pytorch.org"}
CUDA = ("nvidia-", "cuda-")


def pins(file: Path) -> dict[str, str]:
    """Return package -> version of a file of constraints; each line must fix one version."""
    lines = [line.partition("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    parts = [line.split("==") for line in lines if line]
    assert all(len(part) == 2 for part in parts), file
    assert len({canonicalize_name(name) for name, _ in parts}) == len(parts), f"{file} names a package twice"
    return {str(canonicalize_name(name)): version for name, version in parts}


PACKAGES = pins(ROOT / "constraints" / "packages.txt")
DEFAULT = re.findall(r"^TORCH \?= (\S+)$", MAKEFILE, re.MULTILINE)[0]


def test_the_lock_and_the_constraints_hold_the_same_versions() -> None:
    ours = {**PACKAGES, **pins(ROOT / "constraints" / f"torch-{DEFAULT}.txt")}
    locked: dict[str, set[str]] = {}
    for package in LOCK["package"]:
        if package["name"] != PROJECT["project"]["name"]:
            locked.setdefault(package["name"], set()).add(package["version"].removesuffix("+cpu"))
    assert {name: locked[name] for name in ours} == {name: {version} for name, version in ours.items()}
    # torch bounds setuptools, NumPy chooses its typing, and torch fixes CUDA's packages.
    left_out = {name for name in locked if name not in ours and not name.startswith(CUDA)}
    assert left_out == {"setuptools", "numpy-typing-compat"}


def test_the_lock_holds_public_addresses_alone() -> None:
    text = (ROOT / "uv.lock").read_text(encoding="utf-8")
    assert set(re.findall(r"[a-z+]+://([^/\"]+)", text)) == HOSTS
    assert "file:" not in text


def test_the_lock_has_torch_for_every_python_and_machine() -> None:
    builds: dict[str, Any] = {p["version"]: p for p in LOCK["package"] if p["name"] == "torch"}
    assert set(builds) == {"2.13.0", "2.13.0+cpu"}
    for version, machines in {
        "2.13.0": ("x86_64", "aarch64", "macosx_14_0_arm64"),
        "2.13.0+cpu": ("x86_64", "aarch64"),
    }.items():
        wheels = [wheel["url"] for wheel in builds[version]["wheels"]]
        assert all(wheel["hash"].startswith("sha256:") for wheel in builds[version]["wheels"])
        for machine in machines:
            for tag in ("cp311", "cp312", "cp313", "cp314"):
                assert any(f"{tag}-{tag}-" in url and machine in url for url in wheels), (version, machine, tag)
    assert not any(name["name"].startswith("nvidia-c") for name in builds["2.13.0+cpu"]["dependencies"])


@pytest.mark.parametrize("file", PAIRS, ids=lambda file: file.stem)
def test_a_pair_is_what_pyproject_allows(file: Path) -> None:
    pair = pins(file)
    assert set(pair) == {"torch", "triton", "numpy"}
    assert pair["torch"].startswith(file.stem.removeprefix("torch-"))
    asked = {r.name: r.specifier for r in map(Requirement, PROJECT["project"]["dependencies"])}
    assert all(version in asked[name] for name, version in pair.items())
    assert not set(pair) & set(PACKAGES)


def test_the_oldest_and_the_newest_pair_are_there() -> None:
    assert [file.stem for file in PAIRS] == [f"torch-2.{minor}" for minor in range(11, 16)]
    lower = {r.name: r.specifier for r in map(Requirement, PROJECT["project"]["dependencies"])}["torch"]
    assert lower == SpecifierSet(">=2.11")


@pytest.mark.parametrize("requirement", PROJECT["project"]["dependencies"])
def test_what_is_tested_is_allowed(requirement: str) -> None:
    asked = Requirement(requirement)
    tested = {**PACKAGES, **pins(ROOT / "constraints" / f"torch-{DEFAULT}.txt")}
    assert tested[str(canonicalize_name(asked.name))] in asked.specifier


@pytest.mark.parametrize("requirement", PROJECT["project"]["dependencies"])
def test_what_is_installed_is_used(requirement: str) -> None:
    name = canonicalize_name(Requirement(requirement).name)
    modules = {module for module, given in packages_distributions().items() if name in map(canonicalize_name, given)}
    if name == "snakemake":  # The command; `src` never imports it.
        return
    if name == "triton" and not modules:
        pytest.skip("there is no Triton for this machine")
    used = {
        (alias.name if isinstance(node, ast.Import) else str(node.module)).partition(".")[0]
        for file in (ROOT / "src").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert modules & used, f"nothing in src imports {name}"


@pytest.mark.parametrize(
    ("machine", "system", "wanted"),
    [("x86_64", "linux", True), ("aarch64", "linux", True), ("arm64", "darwin", False), ("ppc64le", "linux", False)],
)
def test_triton_is_asked_for_where_there_is_one(machine: str, system: str, wanted: bool) -> None:
    marker = {r.name: r.marker for r in map(Requirement, PROJECT["project"]["dependencies"])}["triton"]
    assert marker is not None
    assert marker.evaluate({"platform_machine": machine, "sys_platform": system}) is wanted


# -- Pythons -----------------------------------------------------------------------------------------------------------


def test_the_same_pythons_are_said_everywhere() -> None:
    allowed = SpecifierSet(PROJECT["project"]["requires-python"])
    assert [f"3.{minor}" for minor in range(8, 20) if f"3.{minor}" in allowed] == list(PYTHONS)
    assert SpecifierSet(LOCK["requires-python"]) == allowed
    bounds = re.findall(r"\((\d+), (\d+)\)", MAKEFILE)
    assert bounds == [("3", "11"), ("3", "15")]
    for file in (ROOT / "README.md", ROOT / "Makefile"):
        assert f"{PYTHONS[0]} to {PYTHONS[-1]}" in file.read_text(encoding="utf-8"), file


def test_the_workflow_runs_the_corners() -> None:
    whole = WORKFLOW["jobs"]["all"]["strategy"]["matrix"]["python"]
    corners = WORKFLOW["jobs"]["corner"]["strategy"]["matrix"]["include"]
    assert whole == [PYTHONS[0], PYTHONS[-1]]
    assert {corner["python"] for corner in corners} == set(PYTHONS)
    assert {f"torch-{corner['torch']}" for corner in corners} == {file.stem for file in PAIRS}
    assert {corner["os"].partition("-")[0] for corner in corners} == {"ubuntu", "macos"}
    assert any(corner["os"].endswith("-arm") for corner in corners)


@pytest.mark.parametrize("version", ["3.10.13", "3.15.0"])
def test_make_refuses_another_python_in_one_sentence(tmp_path: Path, version: str) -> None:
    python = tmp_path / "python3"
    given = tuple(int(part) for part in version.split("."))
    python.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = -V ] && {{ echo Python {version}; exit; }}\n'
        f'exec {sys.executable} -c "import sys; sys.version_info = {given}; exec(sys.argv.pop(1))" "$2"\n'
    )
    python.chmod(0o755)
    done = _make(tmp_path, f"PYTHON={python}")
    assert done.returncode == 2
    assert f"stepbench needs Python 3.11 to 3.14, got Python {version}: install one" in done.stderr
    assert "say make report PYTHON=" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_says_that_there_is_no_python(tmp_path: Path) -> None:
    done = _make(tmp_path, "PYTHON=python-of-nowhere")
    assert done.returncode == 2
    assert "got no python-of-nowhere: install one" in done.stderr


def _make(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / "pyproject.toml").write_text("")
    (folder / "constraints").mkdir()
    for file in (ROOT / "constraints").iterdir():
        (folder / "constraints" / file.name).write_text(file.read_text())
    return subprocess.run(
        ["make", "report", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=60
    )


# -- torch's CPU build -------------------------------------------------------------------------------------------------

PIP = """#!/bin/sh
echo "$@" >> "$(dirname "$0")/../../asked"
case "$*" in *--index-url*) exit {code};; esac
"""


@pytest.mark.parametrize(
    ("gpu", "index", "code", "asked"),
    [
        (False, "https://here/cpu", 0, ["torch", "."]),
        (False, "https://here/cpu", 1, ["torch", "."]),
        (False, "", 0, ["."]),
        (True, "https://here/cpu", 0, ["."]),
    ],
    ids=["there", "not there", "not wanted", "GPU"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere PyPI's torch is a CPU build")
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a GPU")
def test_make_asks_for_the_cpu_build_first_where_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, index: str, code: int, asked: list[str]
) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("sh", "uname", "test", "echo", "touch", "rm", "dirname", "make"):
        (tools / name).symlink_to(subprocess.check_output(["which", name], text=True).strip())
    if gpu:
        (tools / "nvidia-smi").symlink_to("/bin/true")
    pip = tmp_path / ".venv" / "bin" / "python"
    pip.parent.mkdir(parents=True)
    pip.write_text(PIP.format(code=code))
    pip.chmod(0o755)
    (pip.parent / "snakemake").symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tools))
    done = _make(tmp_path, f"PYTHON={sys.executable}", f"CPU_INDEX={index}")
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "asked").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == asked
    assert all("constraints/packages.txt" in line and f"constraints/torch-{DEFAULT}.txt" in line for line in lines)
    assert (f"--index-url {index}" in lines[0]) == (len(lines) == 2)
    assert ("make: not available there" in done.stdout) == (code == 1)
