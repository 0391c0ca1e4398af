import contextlib
import dataclasses
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.reporting import synthetic, synthetic_inside, synthetic_on_ranks

from stepbench.experiments import experiment as experiments
from stepbench.pipeline import records
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States
from stepbench.reporting import frames, tables
from stepbench.reporting.frames import Results

REAL_RECORDS = Path(__file__).with_name("real_records.json.gz")
FOLDER = "results/imaginary-2c/tables/any"  # where links of a table begin
SMALL_GRIDS = {
    "ceilings": [{"operation": ["matmul"], "dtype": ["fp32", "bf16"]}, {"operation": ["copy"]}],
    "end_to_end": [
        {"size": ["nano", "micro"], "context": [64, 128]},
        {"size": ["nano"], "context": [64], "passes": ["forward", "forward_backward"]},
        {"size": ["nano"], "context": [64], "precision": ["fp32", "bf16"], "replicate": [0, 1, 2, 3, 4]},
        {"size": ["nano"], "context": [64], "attention": ["sdpa"], "replicate": [0, 1, 2, 3, 4]},
        {"size": ["nano"], "context": [64], "implementation": ["compiled"]},
    ],
    "warmup": [{"size": ["nano"], "warmup": [0, 1, 5]}],
    "numerics": [{"case": ["accumulation", "autocast_fp16", "autocast_bf16"]}],
    "attention": [
        {"implementation": ["naive", "tiled", "sdpa_flash"], "seq": [128, 512, 2048], "head_dim": [64]},
    ],
}


# Experiments that look inside a step.
INSIDE_GRIDS: dict[str, list[dict[str, Any]]] = {
    "memory": [{"source": ["measured", "predicted"], "size": ["nano"], "context": [128]}],
    "checkpointing": [{"source": ["measured"], "size": ["nano"], "context": [128], "groups": ["none", "1", "2"]}],
    "profile": [{"size": ["nano"], "context": [128], "passes": ["forward", "train_step"]}],
    "fits": [
        {"source": ["predicted"], "size": ["nano", "xl"], "groups": ["none", "1"]},
        {"source": ["measured"], "size": ["nano"], "context": [64], "memory_mib": [1024]},
    ],
}
LADDER_GRID: dict[str, list[dict[str, Any]]] = {
    "ladder": [
        {
            "size": ["nano"],
            "context": [64],
            "rung": ["tf32", "sdpa", "fused_adamw", "compiled"],
            "replicate": [0, 1, 2, 3, 4],
        },
        {"size": ["micro"], "context": [128], "rung": ["sdpa", "fused_adamw"]},
    ],
}
# Experiments on several ranks.
STEP: dict[str, Any] = {"size": ["nano"], "context": [64], "batch": [1]}
ON_RANKS_GRIDS: dict[str, list[dict[str, Any]]] = {
    "collectives": [
        {
            "operation": ["all_reduce"],
            "backend": ["gloo"],
            "ranks": [2],
            "payload_bytes": [4096, 2**20, 2**24],
        },
        {"operation": ["broadcast"], "backend": ["gloo"], "ranks": [2], "payload_bytes": [2**24]},
    ],
    "data_parallel": [
        STEP | {"strategy": ["none", "naive", "flat", "overlapped"]},
        STEP | {"strategy": ["bucketed"], "bucket_mib": [1, 5]},
        STEP | {"strategy": ["torch_ddp"], "bucket_mib": [5]},
    ],
    "optimizer_sharding": [
        STEP | {"source": ["measured"], "variant": ["replicated", "sharded_broadcast", "torch_zero"]},
        STEP | {"source": ["predicted"], "size": ["xl"], "variant": ["replicated", "sharded_broadcast"]},
    ],
    "fsdp": [STEP | {"source": ["measured"], "variant": ["fsdp", "torch_fsdp2"]}],
    "encoder_decoder": [
        {"preset": ["3.5M"], "data": ["memory", "disk"], "megabytes": [3], "ranks": [1, 2], "batch": [4], "steps": [8]}
    ],
}


def results(bench: Bench, name: str) -> Results:
    return frames.load(States(bench), experiments.load(name))


@contextlib.contextmanager
def shared(bench: Bench) -> Iterator[Bench]:
    """Lend a bench to many tests, and fail at the end if one has changed its records: which one runs next is chance."""

    def files() -> dict[str, int]:
        return {str(each): each.stat().st_mtime_ns for each in (bench.root / "results").rglob("*~*.json")}

    before = files()
    yield bench
    assert files() == before, "a test has written to a bench that others read"


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench on which every cell of a small grid was measured; not to be written to."""
    bench = synthetic.bench(tmp_path_factory.mktemp("full"), **SMALL_GRIDS)
    synthetic.fill(bench)
    with shared(bench):
        yield bench


@pytest.fixture(scope="session")
def on_ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench with records of every experiment on several ranks; not to be written to."""
    made = synthetic.bench(tmp_path_factory.mktemp("ranks"), **ON_RANKS_GRIDS)
    synthetic_on_ranks.fill(made)
    with shared(made):
        yield made


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench with records of every experiment; not to be written to."""
    grids = {**SMALL_GRIDS, **LADDER_GRID, **INSIDE_GRIDS, **ON_RANKS_GRIDS}
    made = synthetic.bench(tmp_path_factory.mktemp("everything"), **grids)
    synthetic.fill(made, *SMALL_GRIDS, *LADDER_GRID)
    synthetic_inside.fill(made, *INSIDE_GRIDS)
    synthetic_on_ranks.fill(made)
    with shared(made):
        yield made


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench with records that a machine has measured; not to be written to.

    They count as fresh, and an axis that is younger than they are has its default.
    """
    grids = yaml.safe_load(REAL_RECORDS.with_name("real_records.yaml").read_text(encoding="utf-8"))["experiments"]
    made = synthetic.bench(tmp_path_factory.mktemp("measured"), **{name: each["cpu"] for name, each in grids.items()})
    states = States(made)
    for name, content in json.loads(gzip.decompress(REAL_RECORDS.read_bytes()))["records"].items():
        record = records.believe(content, Path(name))
        cell = experiments.load(record.experiment).cell(**record.cell)
        fresh = dataclasses.replace(record, cell=cell.values, fingerprint=states.fingerprint(cell))
        records.write(made.root / made.path(cell), fresh)
    with shared(made):
        yield made


@pytest.fixture
def empty(tmp_path: Path) -> Bench:
    """A bench with the same grids on which nothing was measured."""
    return synthetic.bench(tmp_path, **SMALL_GRIDS)


def markdown(table: tables.Table) -> str:
    """Return a table as its file beside the records shows it."""
    return tables.markdown(table, FOLDER)


def sentences(bench: Bench, name: str) -> str:
    """Return the findings of an experiment, a line each."""
    return "\n".join(map(str, experiments.load(name).find(results(bench, name))))


def first_table(bench: Bench, name: str) -> tables.Table:
    """Return the first table of an experiment."""
    experiment = experiments.load(name)
    found: tables.Table = experiment.tabulate(results(bench, name))[experiment.table_names[0]]
    return found
