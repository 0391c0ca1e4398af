"""A machine that described itself stands for the one that measures."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from stepbench.pipeline import config, machine, workflow
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.config import ConfigError
from stepbench.pipeline.machine import Machine
from stepbench.pipeline.state import States

ROOT = Path(__file__).parents[2]
SETTINGS = yaml.safe_load((ROOT / "config.yaml").read_text())
NAME = "nvidia-h100-8x"
FILE = Path(__file__).with_name("machines") / f"{NAME}.json"
_FOUND = json.loads(FILE.read_text())
H100 = Machine(**{**_FOUND, **{key: tuple(_FOUND[key]) for key in ("device_names", "capabilities")}})


def write(root: Path, **changes: Any) -> Path:
    path = machine.file_of(root, NAME)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(dataclasses.asdict(H100) | changes))
    return path


@pytest.fixture
def bench_of(tmp_path: Path) -> Callable[..., Bench]:
    def make(**changes: Any) -> Bench:
        return Bench({**SETTINGS, "machine": NAME, **changes}, root=tmp_path, schema=ROOT / config.SCHEMA)

    return make


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = machine.describe(tmp_path, "cpu", "this-one")
    assert path == tmp_path / "machines" / "this-one.json"
    found = machine.described(tmp_path, "this-one")
    assert found is not None
    assert found.described
    assert found.interconnect["numa_nodes"] is None or found.interconnect["numa_nodes"] >= 1
    assert dataclasses.replace(found, described="", interconnect={}) == machine.here("cpu", "this-one")
    assert machine.found_instead(found) == []


def test_the_file_of_an_h100_is_one_that_describe_writes(tmp_path: Path) -> None:
    """It is a fixture of other tests, so it must not fall behind."""
    here = json.loads(machine.describe(tmp_path, "cpu", "this-one").read_text())
    assert list(_FOUND) == list(here)
    assert set(_FOUND["interconnect"]) == set(here["interconnect"])
    assert set(_FOUND["software"]) == set(here["software"])
    write(tmp_path)
    assert machine.described(tmp_path, NAME) == H100


def test_a_described_machine_makes_the_whole_grid(tmp_path: Path, bench_of: Callable[..., Bench]) -> None:
    write(tmp_path)
    bench = bench_of(scale="gpu")
    assert (bench.machine, bench.device, bench.scale, bench.threads) == (NAME, "cuda", "gpu", 112)
    assert len(bench.cells) > 1000
    print_ = States(bench).fingerprint(bench.cells[0])
    assert print_["software"] == {**H100.software, "driver": "570.12"}
    assert print_["machine"]["device_name"] == "NVIDIA H100 80GB HBM3"
    assert print_["machine"]["device_count"] == 8


def test_a_cell_asks_for_whole_nodes(tmp_path: Path, bench_of: Callable[..., Bench]) -> None:
    write(tmp_path)
    whole = {"cpus_per_task": -1, "mem_mb": 0, "slurm_extra": "--exclusive"}
    assert workflow.node_resources(bench_of()) == {"runtime": 20, "gres": "gpu:8", **whole}
    write(tmp_path, device="cpu", device_names=("AMD EPYC",), capabilities=())
    asked = workflow.node_resources(bench_of())
    # A job of two nodes and one task was one of one node, on which both launchers ran.
    assert [asked["tasks"](SimpleNamespace(nodes=count)) for count in ("1", "2")] == [1, 2]
    assert asked["tasks"](SimpleNamespace(size="nano")) == 1
    assert workflow.node_resources(bench_of(machine="auto", device="cpu")) == {}


def test_a_name_without_a_file_is_this_machine(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(device="cpu")
    assert (bench.machine, bench.device, bench.host.described) == (NAME, "cpu", "")


def test_a_gpu_grid_of_a_machine_without_a_file_says_what_is_missing(bench_of: Callable[..., Bench]) -> None:
    told = f"got gpu (cpu); if {NAME} is another machine, have it describe itself: machines/{NAME}.json"
    with pytest.raises(ConfigError, match=re.escape(told)):
        bench_of(device="cpu", scale="gpu")


def test_config_may_not_contradict_the_file(tmp_path: Path, bench_of: Callable[..., Bench]) -> None:
    write(tmp_path)
    with pytest.raises(ConfigError, match="must be auto or cuda, as in machines"):
        bench_of(device="cpu")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": "another"}, "it describes 'another'"),
        ({"device": "tpu"}, "its device is 'tpu'"),
        ({"device_names": []}, r"its device is 'cuda' \(\[\]\)"),
        ({"colour": "green"}, "it lacks or does not know colour"),
        ({"capabilities": None}, "its capabilities are None"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    write(tmp_path, **changes)
    with pytest.raises(ConfigError, match=f"must be a file of `stepbench describe`: {told}"):
        machine.described(tmp_path, NAME)


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    write(tmp_path).write_text("{")
    with pytest.raises(ConfigError, match="it is not JSON"):
        machine.described(tmp_path, NAME)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, []),
        ({"os": "another", "host_memory_bytes": 1, "cpu_cores": 96, "cpu": "AMD EPYC"}, []),
        (
            {"device_names": ("NVIDIA H100 80GB HBM3",) * 4},
            ["`device_names` is 4 × NVIDIA H100 80GB HBM3 instead of 8 × NVIDIA H100 80GB HBM3"],
        ),
        (
            {"capabilities": ("8.0",) * 7 + (None,)},
            ["`capabilities` is 7 × 8.0, 1 × None instead of 8 × 9.0"],
        ),
        ({"driver": "575.1"}, ["`driver` is 575.1 instead of 570.12"]),
        ({"software": {**H100.software, "torch": "2.14.0"}}, ["`torch` is 2.14.0 instead of 2.13.0"]),
    ],
)
def test_what_numbers_depend_on_is_compared(changes: dict[str, Any], told: list[str]) -> None:
    assert H100.differences(dataclasses.replace(H100, **changes)) == told


def test_cores_count_where_they_are_measured() -> None:
    cpu = dataclasses.replace(H100, device="cpu", device_names=("AMD EPYC",))
    assert cpu.device_count == 112
    assert cpu.differences(dataclasses.replace(cpu, cpu_cores=64)) == ["`cpu_cores` is 64 instead of 112"]


def test_this_machine_is_not_an_h100() -> None:
    told = machine.found_instead(dataclasses.replace(H100, device_names=("NVIDIA of another planet",)))
    assert any("device_names" in each for each in told)


@pytest.mark.parametrize("name", ["../elsewhere", "With Space", "", "x" * 81, "a/b"])
def test_a_name_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="`name` must be auto or at most 80"):
        machine.describe(tmp_path, "cpu", name)
    assert list(tmp_path.iterdir()) == []


def test_config_allows_the_same_names() -> None:
    schema = yaml.safe_load((ROOT / config.SCHEMA).read_text())
    assert re.match(r"\^(.*?)\$", schema["properties"]["machine"]["pattern"])[1] == machine.NAME.pattern  # type: ignore[index]


def test_every_model_of_gpu_is_in_the_fingerprint(tmp_path: Path, bench_of: Callable[..., Bench]) -> None:
    write(tmp_path, device_names=["Tesla T4", "NVIDIA H200", "Tesla T4"], capabilities=["7.5", "9.0", "7.5"])
    bench = bench_of(scale="gpu")
    found = States(bench).fingerprint(bench.cells[0])["machine"]
    assert (found["device_name"], found["device_count"]) == ("Tesla T4, NVIDIA H200", 3)
