import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stepbench.experiments.numerics.cell import Cell as Numerics
from stepbench.experiments.warmup.cell import Cell as Warmup
from stepbench.measure import devices, environment
from stepbench.measure.devices import Device, Found
from stepbench.pipeline import config, fingerprint, records
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.config import ConfigError
from stepbench.pipeline.records import Record
from stepbench.pipeline.state import States
from stepbench.process import allocator

ROOT = Path(__file__).parents[2]
SIZE = {"d_model": 32, "d_ff": 64, "layers": 1, "heads": 2}
SETTINGS: dict[str, Any] = {
    "machine": "here",
    "device": "cpu",
    "scale": "auto",
    "protocol": {
        "seed": 0,
        "threads": 2,
        "cpu": {"warmup_steps": 1, "measured_steps": 2},
        "gpu": {"warmup_steps": 3, "measured_steps": 4},
    },
    "limits": {"time_s": 60, "host_memory_gib": None},
    "vocabulary": 300,
    "data": {"source": "synthetic", "corpus_bytes": 20000},
    "sizes": {"nano": SIZE, "micro": {**SIZE, "layers": 2}},
    "experiments": {
        "warmup": {
            "cpu": [{"size": ["nano"], "warmup": [0, 1], "replicate": [0, 1]}],
            "gpu_quick": [{"size": ["micro"], "warmup": [5]}],
            "gpu": [{"size": ["micro"], "warmup": [5, 10]}],
        },
        "numerics": {"cpu": [{"case": ["accumulation"]}]},
    },
}
CELL = Warmup("nano", 1)
PATH = "results/here/warmup/size~nano,warmup~1,replicate~0.json"

Open = Callable[..., Bench]


@pytest.fixture
def open_bench(tmp_path: Path) -> Open:
    def open_(**changes: Any) -> Bench:
        return Bench({**SETTINGS, **changes}, root=tmp_path, schema=ROOT / config.SCHEMA)

    return open_


@pytest.fixture
def bench(open_bench: Open) -> Bench:
    return open_bench()


def record(bench: Bench, cell: Any = CELL, name: str = "warmup", **changes: Any) -> Record:
    found = Record(
        experiment=name,
        cell=dataclasses.asdict(cell),
        status="ok",
        fingerprint=States(bench).fingerprint(cell),
        started="2026-01-01T00:00:00.000+00:00",
        duration_s=1.0,
        samples={"step_s": [0.1]},
    )
    return dataclasses.replace(found, **changes)


def write(bench: Bench, cell: Any = CELL, name: str = "warmup", **changes: Any) -> None:
    records.write(bench.root / bench.path(cell), record(bench, cell, name, **changes))


# -- cells and files ---------------------------------------------------------------------------------------------------


def test_a_cell_has_one_path_and_a_path_one_cell(bench: Bench) -> None:
    assert str(bench.path(CELL)) == PATH
    cell = bench.locate(PATH)
    assert (cell.experiment, cell) == ("warmup", CELL)


def test_the_grid_is_that_of_this_scale_in_rounds(bench: Bench) -> None:
    assert bench.scale == "cpu"
    assert bench.names == ("warmup", "numerics")
    assert [(cell.warmup, cell.replicate) for cell in bench.grid("warmup")] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert bench.paths("warmup")[1] == PATH
    assert bench.grid("ceilings") == ()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (
            "results/there/warmup/size~nano,warmup~1,replicate~0.json",
            "must be this machine, here, got 'there'",
        ),
        ("results/here/warm/size~nano,warmup~1,replicate~0.json", "an experiment must be one of attention, ceilings, "),
        ("results/here/experiment/size~nano.json", "an experiment must be one of attention, ceilings, "),
        ("results/here/_decoder_step/size~nano.json", "an experiment must be one of attention, ceilings, "),
        ("results/here/warmup/size~giant,warmup~1,replicate~0.json", "`size` must be one of nano, micro, got 'giant'"),
        ("results/here/warmup/size~nano,warmup~01,replicate~0.json", "`warmup` must be a whole number"),
        ("results/here/warmup/size~nano.json", "must name the axes size, warmup, replicate in this order"),
        ("results/here/warmup/size~nano,warmup~1,replicate~0.txt", "must be results/here/<experiment>/<cell>.json"),
        ("results/here/size~nano,warmup~1,replicate~0.json", "must be results/here/<experiment>/<cell>.json"),
        ("other/here/warmup/size~nano,warmup~1,replicate~0.json", "must be results/here/<experiment>/<cell>.json"),
        ("/results/here/warmup/size~nano,warmup~1,replicate~0.json", "must be results/here/<experiment>/<cell>.json"),
        ("results/here/../here/warmup/x.json", "must be results/here/<experiment>/<cell>.json"),
        ("results/here/warmup/.json", "must name the axes"),
    ],
)
def test_another_path_is_refused(bench: Bench, path: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        bench.locate(path)
    if path.startswith("results/") and path.endswith(".json"):
        with pytest.raises(ConfigError, match=message):
            bench.check_targets(["-n", "all", PATH, path])


def test_targets_that_are_no_records_are_left_to_snakemake(bench: Bench) -> None:
    bench.check_targets(["all", "--cores", "1", PATH, "report/writeup.md", "results/here/tables/warmup/warmup.csv"])
    rendered = ("tables/warmup/warmup", "figures/warmup/warmup", "findings/warmup")
    bench.check_targets([f"results/here/{name}.json" for name in rendered])


# -- machine and scale -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": "gpu"}, r"`scale` must be auto or cpu on a machine without a GPU, got gpu \(cpu\)"),
        ({"device": "cuda"}, r"`device` must be one that this machine has \(cpu\), got cuda"),
        ({"vocabulary": 0}, "`vocabulary` must be a whole number from 2"),
    ],
)
def test_what_this_machine_cannot_do_is_refused(
    open_bench: Open, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr(devices, "found", Found)
    with pytest.raises(ConfigError, match=message):
        open_bench(**changes)


def test_with_a_gpu_auto_takes_the_gpu_grid(open_bench: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Device("NVIDIA H200", memory_bytes=1)
    monkeypatch.setattr(devices, "found", lambda: Found("cuda", "cuda", (gpu, gpu)))
    found = open_bench(device="auto", machine="auto")
    assert (found.device, found.scale, found.machine) == ("cuda", "gpu_quick", "nvidia-h200-2x")
    assert found.names == ("warmup",)
    assert len(found.cells) < len(open_bench(device="auto", scale="gpu").cells)
    assert found.protocol == {"seed": 0, "threads": 2, "warmup_steps": 3, "measured_steps": 4}
    assert open_bench(device="auto", scale="cpu").names == ("warmup", "numerics")


def test_threads_are_all_cores_unless_they_are_given(open_bench: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "cores", lambda: 7)
    assert open_bench().threads == 2
    found = open_bench(protocol={**SETTINGS["protocol"], "threads": "auto"})
    assert found.threads == found.protocol["threads"] == 7
    assert States(found).fingerprint(CELL)["machine"]["threads"] == 7


def test_a_number_depends_on_the_settings_of_malloc(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    before = States(bench).fingerprint(CELL)
    monkeypatch.setattr(allocator, "wanted", lambda: "glibc.malloc.mmap_max=7")
    (found,) = fingerprint.difference(before, States(bench).fingerprint(CELL))
    assert (found.part, found.key, found.after) == ("machine", "allocator", "glibc.malloc.mmap_max=7")


# -- what a number depends on ------------------------------------------------------------------------------------------


def test_a_definition_holds_the_settings_that_the_experiment_uses(bench: Bench) -> None:
    protocol = {"seed": 0, "warmup_steps": 1, "measured_steps": 2}
    assert bench.definition(CELL) == {
        "protocol": protocol,
        "vocabulary": 300,
        "data": {"source": "synthetic", "corpus_bytes": 20000},
        "size": SIZE,
    }
    assert bench.definition(Numerics("accumulation")) == {"protocol": protocol}


def test_a_size_that_is_not_configured_has_no_definition(bench: Bench) -> None:
    with pytest.raises(ValueError, match="`size` must be one of nano, micro, got 'giant'"):
        States(bench).fingerprint(Warmup("giant", 0))


def test_the_content_of_a_token_file_is_part_of_the_definition(open_bench: Open, tmp_path: Path) -> None:
    found = open_bench(data={"source": "mine.npy", "corpus_bytes": 20000})
    assert found.definition(CELL)["data"]["content"] == "missing"
    np.save(tmp_path / "mine.npy", np.zeros(500, dtype=np.uint16))
    first = open_bench(data={"source": "mine.npy", "corpus_bytes": 20000}).definition(CELL)
    np.save(tmp_path / "mine.npy", np.ones(501, dtype=np.uint16))
    second = open_bench(data={"source": "mine.npy", "corpus_bytes": 20000}).definition(CELL)
    assert first["data"]["content"] != second["data"]["content"] != "missing"


def test_a_bench_of_a_file_tells_all_mistakes_at_once(tmp_path: Path) -> None:
    shutil.copy(ROOT / config.SCHEMA, tmp_path)
    (tmp_path / "config.yaml").write_text(json.dumps(SETTINGS))
    assert Bench.open(tmp_path).machine == "here"
    text = json.dumps({**SETTINGS, "vocabulary": -1, "surprise": 1}).replace('"seed": 0', '"seed": 010')
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError) as raised:
        Bench.open(tmp_path)
    assert len(str(raised.value).splitlines()) == 3


def test_a_named_source_of_tokens_has_a_folder_of_its_own(open_bench: Open) -> None:
    """Neither source's records replace the other's; the name itself changes no number."""
    data = {"source": "corpus", "corpus_bytes": 20000}
    corpus, mine = open_bench(data=data), open_bench(data={**data, "name": "my.text"})
    assert (corpus.machine, mine.machine) == ("here", "here-my.text")
    assert mine.host.name == "here"
    assert mine.path(CELL) == Path(PATH.replace("here", "here-my.text"))
    assert mine.locate(mine.path(CELL)) == CELL
    with pytest.raises(ValueError, match=r"must be this machine, here-my\.text, got 'here'"):
        mine.locate(PATH)
    assert States(mine).fingerprint(CELL) == States(corpus).fingerprint(CELL)
    with pytest.raises(ConfigError, match="at most 40 lower-case letters, digits"):
        open_bench(data={**data, "name": "../elsewhere"})
