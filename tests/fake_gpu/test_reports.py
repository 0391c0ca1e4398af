"""The quick grid with its report on pretended machines, as `make report` gives it there.

    make test-fake-gpu-reports

Half an hour each on two cores. Kernels do nothing here, so that numbers mean nothing; what is looked at is what became
of each cell.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.fake_gpu.machine import H100, LAPTOP, ROOT, RTX_5090, T4, Machine
from tests.workflow.bench_copy import COPIED, GENERATED

pytestmark = [pytest.mark.fake_gpu, pytest.mark.slow, pytest.mark.timeout(4 * 3600)]

MACHINES = {"8 GB laptop": (LAPTOP,), "2 × RTX 5090": (RTX_5090, RTX_5090), "H100 80 GB": (H100,), "T4": (T4,)}
# What a pretended machine cannot do, by the end of its reason: attention by cuDNN, which builds a plan from what the
# library tells. The cells of `sdpa_cudnn`, and on an H100 those of `sdpa`, where torch takes cuDNN by itself.
CANNOT = "vector::_M_default_append"


@pytest.mark.parametrize("name", MACHINES)
def test_the_quick_grid_gives_a_report_without_an_error(cuda: Machine, tmp_path: Path, name: str) -> None:
    for each in COPIED:
        source, target = ROOT / each, tmp_path / each
        if source.is_dir():
            shutil.copytree(source, target, ignore=GENERATED)
        else:
            shutil.copy(source, target)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(shortened(), sort_keys=False), encoding="utf-8")
    words = ("-m", "snakemake", "--cores", "1", "--", "report/writeup.md", "all")
    more = {"PYTHONPATH": cuda.path(tmp_path / "src"), "FAKE_KERNEL_US": "20"}  # so that no time is none
    done = cuda.run(*words, gpus=MACHINES[name], cwd=tmp_path, timeout_s=4 * 3600, **more)
    (tmp_path / "output.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    found = records(tmp_path)
    assert len(found) > 45, done.stderr[-2000:]
    wrong = {cell: each["reason"] for cell, each in found.items() if each["status"] not in ("ok", "oom", "unsupported")}
    assert {cell: reason for cell, reason in wrong.items() if not reason.endswith(CANNOT)} == {}
    # Out of memory by prediction alone: what is predicted to fit did.
    beyond = {cell: each["reason"] for cell, each in found.items() if each["status"] == "oom"}
    assert {cell: reason for cell, reason in beyond.items() if found[cell]["kind"] != "predicted_oom"} == {}
    assert "not measured or stale" not in (tmp_path / "report" / "writeup.md").read_text(encoding="utf-8")
    assert done.returncode == (1 if wrong else 0), done.stderr[-2000:]


def shortened() -> dict[str, Any]:
    """Return config.yaml with fewer steps and one process of each cell: nothing is learned from their times."""
    settings: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    settings["protocol"]["gpu"] = {"warmup_steps": 1, "measured_steps": 2}
    for grids in settings["experiments"].values():
        for product in [*grids.get("gpu_first", []), *grids.get("gpu_quick", [])]:
            if "replicate" in product:
                product["replicate"] = [0]
    return settings


def records(root: Path) -> dict[str, dict[str, Any]]:
    """Return the record of each measured cell."""
    found = {}
    for path in sorted(root.glob("results/*/*/*~*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        found[f"{path.parent.name}/{path.stem}"] = content.get("record", content)
    return found
