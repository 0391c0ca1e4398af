"""The rows of the staleness table about code, on the real package: what a dry run of Snakemake would measure.

The records are written and not measured, since only their fingerprints matter here.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.workflow.bench_copy import CONFIG, Copy

from stepbench.pipeline import reach

IMPLEMENTATIONS = ("naive", "sdpa", "tiled", "triton")
STRATEGIES = ("naive", "bucketed", "torch_ddp")
STEP = {"size": ["nano"], "context": [16]}
GRIDS = {
    "ceilings": {"cpu": [{"operation": ["copy"]}]},
    "end_to_end": {"cpu": [{**STEP, "attention": list(IMPLEMENTATIONS)}]},
    "attention": {"cpu": [{"implementation": list(IMPLEMENTATIONS), "seq": [128], "head_dim": [64]}]},
    "data_parallel": {"cpu": [{**STEP, "strategy": list(STRATEGIES), "ranks": [1]}]},
}
WRITE_RECORDS = """
from pathlib import Path
from stepbench.pipeline import records
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States

bench = Bench.open(Path.cwd())
states = States(bench)
for cell in bench.cells:
    record = records.Record(
        experiment=cell.experiment,
        cell=cell.values,
        status="ok",
        fingerprint=states.fingerprint(cell),
        started="2026-01-01T00:00:00.000+00:00",
        duration_s=1.0,
        samples={"step_s": [0.1] * 5},
    )
    records.write(bench.root / bench.path(cell), record)
"""
AXIS = {"ceilings": "operation", "end_to_end": "attention", "attention": "implementation", "data_parallel": "strategy"}
KERNELS = "src/stepbench/kernels"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """The workflow as it is in the repository, with a fresh record of each cell; edits are taken back by `restored`."""
    copy = Copy.make(tmp_path_factory.mktemp("recorded") / "bench", toys=False)
    copy.configure({**CONFIG, "experiments": GRIDS})
    done = copy.python("-c", WRITE_RECORDS)
    assert done.code == 0, done.err
    yield copy
    copy.close()


@pytest.fixture
def restored(recorded: Copy) -> Iterator[Copy]:
    """The copy, whose source is put back after the test."""
    source = recorded.root / "src"
    before = {
        path: path.read_bytes() for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    yield recorded
    for path in source.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and path not in before:
            path.unlink()
    for path, content in before.items():
        if path.read_bytes() != content:
            path.write_bytes(content)


def source_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def would_measure(copy: Copy) -> list[str]:
    """Return what a dry run would measure, such as `attention triton`: experiments with the value that differs."""
    records = [str(path.relative_to(copy.root)) for path in sorted((copy.root / "results").glob("*/*/*~*.json"))]
    done = copy.snakemake("-n", *records)
    assert done.code == 0, done.err
    found = re.findall(r"^    output: results/here/(\w+)/(\S+)\.json", done.out, re.MULTILINE)
    values = (dict(part.split("~") for part in cell.split(",")) for _, cell in found)
    return sorted(f"{name} {each[AXIS[name]]}" for (name, _), each in zip(found, values, strict=True))


def append(copy: Copy, file: str, text: str, *, time: float | None = None) -> None:
    path = copy.root / file
    path.write_text(f"{path.read_text()}{text}")
    if time is not None:
        os.utime(path, (time, time))


def test_nothing_is_measured_where_nothing_has_changed(restored: Copy) -> None:
    assert would_measure(restored) == []


@pytest.mark.parametrize("time", [None, 1e9], ids=["now", "long ago"])
def test_a_changed_triton_kernel_re_measures_the_cells_that_run_it(restored: Copy, time: float | None) -> None:
    append(restored, f"{KERNELS}/triton/forward.py", "\nANOTHER_CONSTANT = 1\n", time=time)
    assert would_measure(restored) == ["attention triton", "end_to_end triton"]


def test_tiles_of_gpus_re_measure_nothing_on_a_cpu(restored: Copy) -> None:
    """Those of a GPU's own architecture do: tests/pipeline/test_tiles_on_the_gpu_grid.py."""
    append(restored, f"{KERNELS}/triton/tiles.json", "\n")
    assert would_measure(restored) == []


def test_compiled_figures_re_measure_nothing(restored: Copy) -> None:
    append(restored, f"{KERNELS}/triton/figures.json", "\n")
    assert would_measure(restored) == []


def test_a_changed_plain_implementation_re_measures_its_own_cells(restored: Copy) -> None:
    append(restored, f"{KERNELS}/tiled.py", "\nANOTHER_CONSTANT = 1\n")
    assert would_measure(restored) == ["attention tiled", "end_to_end tiled"]


def test_changed_naive_attention_re_measures_its_own_steps_and_the_operators_that_record_its_errors(
    restored: Copy,
) -> None:
    append(restored, f"{KERNELS}/naive.py", "\nANOTHER_CONSTANT = 1\n")
    expected = [f"attention {name}" for name in IMPLEMENTATIONS]
    expected += [f"data_parallel {name}" for name in STRATEGIES]  # whose attention is naive
    assert would_measure(restored) == sorted([*expected, "end_to_end naive"])


@pytest.mark.parametrize("name", ["end_to_end", "data_parallel", "fsdp", "memory", "profile"])
def test_no_step_depends_on_naive_attention_by_itself(name: str) -> None:
    assert f"{reach.PACKAGE}.kernels.naive" not in reach.source(f"{reach.PACKAGE}.experiments.{name}.measure")


def test_a_changed_strategy_re_measures_its_cells_and_those_timed_beside_it(restored: Copy) -> None:
    append(restored, "src/stepbench/parallel/torch_ddp.py", "\nANOTHER_CONSTANT = 1\n")
    assert would_measure(restored) == ["data_parallel bucketed", "data_parallel torch_ddp"]


def test_a_new_implementation_and_a_new_strategy_re_measure_nothing(restored: Copy) -> None:
    for registry, module in (("kernels", "naive"), ("parallel", "naive")):
        names = restored.root / f"src/stepbench/{registry}/names.py"
        text = names.read_text()
        line = re.search(r'^    "naive": .*\n', text, re.MULTILINE)
        assert line, text
        names.write_text(text.replace(line[0], line[0] + line[0].replace("naive", "brand_new")))
        folder = restored.root / f"src/stepbench/{registry}"
        (folder / "brand_new.py").write_text((folder / f"{module}.py").read_text())
    assert would_measure(restored) == []


def test_the_code_of_tables_figures_and_findings_re_measures_nothing(restored: Copy) -> None:
    for file in ("experiments/attention/tables.py", "experiments/end_to_end/figures.py", "reporting/statistics.py"):
        append(restored, f"src/stepbench/{file}", "\nANOTHER_CONSTANT = 1\n")
    assert would_measure(restored) == []


def test_a_title_and_what_an_experiment_reads_re_measure_nothing(restored: Copy) -> None:
    path = restored.root / "src/stepbench/experiments/end_to_end/cell.py"
    text = path.read_text()
    changed = text.replace('TITLE = "End to end"', 'TITLE = "A training step"').replace(
        "READS = (", 'READS = ("numerics", '
    )
    assert len(changed) > len(text) + 10
    path.write_text(changed)
    assert would_measure(restored) == []


def test_the_source_of_the_copy_is_what_counts(restored: Copy) -> None:
    """Or all of the above would hold without any fingerprint."""
    append(restored, "src/stepbench/models/decoder.py", "\nANOTHER_CONSTANT = 1\n")
    expected = [f"data_parallel {name}" for name in STRATEGIES] + [f"end_to_end {name}" for name in IMPLEMENTATIONS]
    assert would_measure(restored) == sorted(expected)
