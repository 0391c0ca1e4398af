"""Tables and findings of sharding, made from records that nobody measured."""

from pathlib import Path

import pytest
from tests.reporting import synthetic, synthetic_on_ranks
from tests.reporting.conftest import STEP, first_table, markdown, results, sentences

from stepbench.experiments import experiment as experiments
from stepbench.pipeline.bench import Bench
from stepbench.reporting import general_findings, steps


def test_what_a_rank_keeps_stands_beside_what_everybody_keeps(on_ranks: Bench) -> None:
    text = sentences(on_ranks, "optimizer_sharding")
    assert (
        "sharded broadcast (nano), after the update and relative to replicated: parameters 1.00×, gradients 1.00×"
        in text
    )
    assert "and optimizer state 0.500×" in text
    assert "sharded broadcast (xl), after the update and relative to replicated, predicted: " in text
    assert "Every predicted peak is within 0.01 % of the measured one." in text
    assert "A step of sharded broadcast takes 0.7" in text
    assert "target ≤ 1.00×: met, in one process." in text


def test_fsdp_stands_beside_the_replicated_optimizer_of_the_other_experiment(on_ranks: Bench) -> None:
    text = sentences(on_ranks, "fsdp")
    assert "fsdp, after the update and relative to replicated: parameters 0.500×, gradients 0.500×" in text
    assert "The peak memory of fsdp is 1.00× that of torch fsdp2; target ≤ 1.05×: met." in text
    figure = experiments.load("fsdp").plot(results(on_ranks, "fsdp"))["memory"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["replicated", "fsdp", "torch fsdp2"]


def test_moments_are_told_in_one_unit(on_ranks: Bench) -> None:
    (row,) = [row for row in first_table(on_ranks, "fsdp").rows if row["variant"] == "fsdp"]
    assert row["built_gradients_bytes"] == 0
    text = markdown(first_table(on_ranks, "fsdp"))
    assert "6.89 + 0.00 + 0.00 MiB" in text
    assert "6.89 + 6.89 + 13.8 MiB" in text


def test_a_variant_that_cannot_be_predicted_is_told(tmp_path: Path) -> None:
    bench = synthetic.bench(tmp_path, fsdp=[STEP | {"source": ["predicted"], "variant": ["torch_fsdp2"]}])
    (cell,) = bench.grid("fsdp")
    synthetic.write(bench, "fsdp", cell, status="unsupported", reason="a strategy must not look at values")
    told = [*map(str, general_findings.gaps(results(bench, "fsdp")))]
    assert told == ["1 of 1 cell is not supported here: a strategy must not look at values."]


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("data_parallel", {"strategy": ["flat"]}),
        ("optimizer_sharding", {"variant": ["sharded_broadcast"], "source": ["measured"]}),
        ("fsdp", {"variant": ["fsdp"], "source": ["measured"]}),
    ],
)
def test_the_energy_of_a_step_on_all_ranks_has_columns_where_a_record_has_it(
    tmp_path: Path, name: str, axes: dict[str, list[str]]
) -> None:
    def tables() -> str:
        return "".join(map(markdown, experiments.load(name).tabulate(results(bench, name)).values()))

    bench = synthetic.bench(tmp_path, **{name: [STEP | axes]})
    (cell,) = bench.grid(name)
    content = synthetic_on_ranks.MEASURED[name](bench, cell, synthetic.np.random.default_rng(0), 0.01)
    synthetic.write(bench, name, cell, **content)
    assert "energy" not in tables().lower()
    content["scalars"] |= {"step_energy_joules": 12.8, "tokens_per_step": 256}
    synthetic.write(bench, name, cell, **content)
    text = tables()
    assert ("12.8 J" in text, "50.0 mJ" in text, steps.ENERGY_ON_RANKS in text) == (True, True, True)
