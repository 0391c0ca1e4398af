from pathlib import Path

import pytest
from tests.reporting import synthetic

from stepbench.experiments import experiment as experiments
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States
from stepbench.reporting import frames
from stepbench.reporting.frames import Results

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


def results(bench: Bench, name: str) -> Results:
    return frames.load(States(bench), experiments.load(name))


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """A bench on which every cell of a small grid was measured; not to be written to."""
    bench = synthetic.bench(tmp_path_factory.mktemp("full"), **SMALL_GRIDS)
    synthetic.fill(bench)
    return bench


@pytest.fixture
def empty(tmp_path: Path) -> Bench:
    """A bench with the same grids on which nothing was measured."""
    return synthetic.bench(tmp_path, **SMALL_GRIDS)
