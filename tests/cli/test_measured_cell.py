"""What `stepbench measure` prints of one cell of each experiment."""

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.reporting import synthetic, synthetic_inside, synthetic_on_ranks
from tests.reporting.conftest import INSIDE_GRIDS, ON_RANKS_GRIDS, SMALL_GRIDS
from tests.workflow.bench_copy import Copy

from stepbench.cli import measure
from stepbench.experiments import experiment as experiments
from stepbench.pipeline import records
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States

LEAST_FOR_INTERVAL = 6
MEASURED = {**synthetic.MEASURED, **synthetic_inside.MEASURED, **synthetic_on_ranks.MEASURED}
LADDER = [{"size": ["nano"], "context": [64], "rung": ["sdpa"]}]
GRIDS = {**SMALL_GRIDS, **INSIDE_GRIDS, **ON_RANKS_GRIDS, "ladder": LADDER}
QUANTITY = r"(?:\d[\d.\N{NARROW NO-BREAK SPACE} ]*)"  # a terminal gets a plain space
# A time or bytes with its interval, or with why it has none.
TIME = rf"{QUANTITY} \[{QUANTITY}, {QUANTITY}\] (?:s|ms|µs|ns)\b"
ONCE = rf"{QUANTITY} (?:s|ms|µs|ns|B|KiB|MiB|GiB) \((?:one sample|predicted|too few samples for an interval)\)"


def bench(root: Path, name: str) -> Bench:
    return synthetic.bench(root, **{name: GRIDS[name]})


def write(made: Bench, name: str, cell: Any, seed: int = 0, **changes: Any) -> records.Record:
    found = MEASURED[name](made, cell, np.random.default_rng(seed), 0.01)
    return synthetic.write(made, name, cell, **found, **changes)


def shown(made: Bench, cell: Any, capsys: pytest.CaptureFixture[str], before: records.Record | None = None) -> str:
    measure.show(States(made), cell, before)
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def line_of(text: str, label: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if re.match(rf"│ {re.escape(label)} +│", line))
    return [part.strip() for part in line.strip("│").split("│")]


def test_every_experiment_has_a_synthetic_cell() -> None:
    assert set(GRIDS) == set(MEASURED) == set(experiments.names())


@pytest.mark.parametrize("name", experiments.names())
def test_every_cell_prints_a_time_or_bytes_with_interval_and_quality(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = bench(tmp_path, name)
    cells = [(cell, record) for cell in made.grid(name) if (record := write(made, name, cell)).ok]
    assert cells
    for cell, record in cells:
        text = shown(made, cell, capsys)
        first = text.split("quality: warnings", 1)[1].split("└")[0]
        rows = [line for line in first.splitlines() if line.startswith("│")]
        assert rows, text
        for row in rows:
            assert re.search(f"{TIME}|{ONCE}", row), row
            assert re.search(r"│ [ABCD](?:: .*)? *│$", row), row
        timed = [values for key, values in record.samples.items() if key.endswith("_s") and values]
        several = [each for each in timed if len(each[0] if isinstance(each[0], list) else each) >= LEAST_FOR_INTERVAL]
        assert len([row for row in rows if re.search(TIME, row)]) == len(several)


def test_samples_of_ranks_are_those_of_the_slowest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = bench(tmp_path, "collectives")
    cell = made.grid("collectives")[0]
    calls = [[0.001] * 7, [0.002] * 6 + [0.0005]]
    synthetic.write(made, "collectives", cell, samples={"call_s": calls}, scalars={"message_bytes": 4096})
    text = shown(made, cell, capsys)
    assert line_of(text, "call (slowest of 2 ranks)")[1] == "7"
    assert re.fullmatch(r"2\.0\d* \[1\.\d+, 2\.0\d*\] ms", line_of(text, "call (slowest of 2 ranks)")[2])
    assert "bus bandwidth" in text  # the experiment's own table


def test_the_record_before_stands_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = bench(tmp_path, "warmup")
    cell = made.grid("warmup")[0]
    now = write(made, "warmup", cell)
    half = {key: [value / 2 for value in values] for key, values in now.samples.items()}
    before = dataclasses.replace(now, samples=half, started="2020-02-02T00:00:00.000+00:00")
    assert "now over before" not in shown(made, cell, capsys)
    text = shown(made, cell, capsys, before)
    assert "2.00×" in line_of(text, "step")
    assert "Before: the record of 2020-02-02" in text
    assert "one process each: no verdict" in text
    failed = dataclasses.replace(before, status="error", reason="why", samples={}, scalars={})
    assert "now over before" not in shown(made, cell, capsys, failed)


def test_what_is_true_of_all_times_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = bench(tmp_path, "warmup")
    cell = made.grid("warmup")[0]
    load = {"wall_s": 10.0, "cores": 2, "others_cpu_s": 9.0}
    write(made, "warmup", cell, environment={**synthetic.FACTS, "during": load})
    text = shown(made, cell, capsys)
    assert line_of(text, "step")[-1] == "C"
    assert line_of(text, "forward")[-1].startswith("C: outliers")
    assert line_of(text, "peak host")[-1] == "A"
    assert text.count("Of all times: disturbed (45 % of the CPU used by other processes).") == 1


def test_few_samples_have_no_interval_and_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = bench(tmp_path, "numerics")
    cell = made.grid("numerics")[0]
    write(
        made,
        "numerics",
        cell,
        samples={"once_s": [0.1], "thrice_s": [0.2] * 3, "noisy_s": [0.01, 0.03] * 8, "once_system_s": [0.0]},
    )
    text = shown(made, cell, capsys)
    assert line_of(text, "once")[2] == "100 ms (one sample)"
    assert line_of(text, "thrice")[2] == "200 ms (too few samples for an interval)"
    assert line_of(text, "noisy")[-1].startswith("B: noisy (CV")
    assert line_of(text, "once")[-1] == "A"
    assert "once system" not in text


# A cell of each experiment that takes no more than seconds; one of them in every run.
STEP = "size=nano,context=16,batch=1"
REAL = {
    "attention": "implementation=tiled,seq=128,head_dim=16,heads=2",
    "ceilings": "operation=copy",
    "checkpointing": f"source=measured,{STEP},groups=1",
    "collectives": "operation=all_reduce,backend=gloo,ranks=2,payload_bytes=4096",
    "data_parallel": f"{STEP},strategy=flat",
    "encoder_decoder": "preset=3.5M,data=memory,megabytes=3,ranks=1,batch=4,context=16,steps=8,precision=fp32",
    "end_to_end": STEP,
    "fits": "source=measured,size=nano,context=16,memory_mib=200",
    "fsdp": f"source=measured,{STEP},variant=fsdp",
    "ladder": f"{STEP},rung=sdpa",
    "memory": f"source=measured,{STEP}",
    "numerics": "case=accumulation",
    "optimizer_sharding": f"source=measured,{STEP},variant=replicated",
    "profile": STEP,
    "warmup": "size=nano,warmup=0",
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    made = Copy.make(tmp_path_factory.mktemp("real") / "bench", toys=False)
    made.set("data.source", "synthetic")
    yield made
    made.close()


def test_every_experiment_has_a_real_cell() -> None:
    assert set(REAL) == set(experiments.names())


@pytest.mark.parametrize(
    "name", [name if name == "numerics" else pytest.param(name, marks=pytest.mark.slow) for name in REAL]
)
def test_a_real_cell_prints_a_time_and_quality(copy: Copy, name: str) -> None:
    done = copy.python("-m", "stepbench", "measure", name, REAL[name])
    assert done.code == 0, done.err
    first = done.out.split("quality: warnings", 1)[1].split("└")[0]
    rows = [line for line in first.splitlines() if line.startswith("│")]
    assert rows, done.out
    for row in rows:
        assert re.search(f"{TIME}|{ONCE}", row), row
        assert re.search(r"│ [ABCD](?:: .*)? *│$", row), row
