"""The profile experiment's tables, figures and sentences, made from records that nobody measured."""

from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from tests.reporting import synthetic, synthetic_inside
from tests.reporting.conftest import markdown

from stepbench.experiments import experiment as experiments
from stepbench.experiments.profile import operators
from stepbench.pipeline.state import States
from stepbench.reporting import frames
from stepbench.reporting.frames import Results

GRID: list[dict[str, Any]] = [{"size": ["nano"], "context": [128], "passes": ["forward", "train_step"]}]
EXPERIMENT = experiments.load("profile")


def results(root: Path, change: Any = None, grid: list[dict[str, Any]] = GRID) -> Results:
    bench = synthetic.bench(root, profile=grid)
    synthetic_inside.fill(bench, "profile", spread=0.0)
    if change:
        for cell in bench.grid("profile"):
            fields = synthetic_inside.profile(bench, cell, _rng(), 0.0)
            change(fields)
            synthetic.write(bench, "profile", cell, **fields)
    return frames.load(States(bench), EXPERIMENT)


def _rng() -> Any:
    import numpy as np

    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return results(tmp_path_factory.mktemp("full"))


@pytest.fixture(scope="module")
def drawn(full: Results) -> dict[str, Figure]:
    return EXPERIMENT.plot(full)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::mm", "matrix products"),
        ("aten::baddbmm", "matrix products"),
        ("mkldnn::_linear_pointwise", "matrix products"),
        ("aten::_log_softmax_backward_data", "softmax"),
        ("aten::silu_backward", "elementwise"),
        ("aten::_foreach_addcdiv_", "elementwise"),
        ("aten::_foreach_copy_", "copies and fills"),
        ("aten::copy_", "copies and fills"),
        ("aten::sum", "norms and sums"),
        ("triton_poi_fused_mul_silu_3", "fused by the compiler"),
        ("aten::transpose", "views and bookkeeping"),
        ("autograd::engine::evaluate_function: MmBackward0", "views and bookkeeping"),
    ],
)
def test_each_operator_is_of_one_kind(name: str, kind: str) -> None:
    assert operators.kind_of(name) == kind
    assert kind in operators.KINDS


def test_a_phase_is_told_whole(full: Results) -> None:
    group = full.groups()[1]
    for phase in operators.phases(group):
        assert sum(phase.by_kind().values()) == pytest.approx(phase.seconds)
    forward = operators.phases(group)[0]
    assert forward.by_kind()["matrix products"] / forward.seconds == pytest.approx(0.6)
    assert forward.by_kind()["framework overhead"] / forward.seconds == pytest.approx(0.1)
    assert not forward.on_device


def test_where_there_is_a_device_its_time_counts(tmp_path: Path) -> None:
    def on_device(fields: dict[str, Any]) -> None:
        for each in fields["details"]["operators"]:
            each["device_s"] = each["self_s"] / 2 if each["name"] == "aten::mm" else 0.0
        fields["details"]["kernels"] = [
            {"phase": "forward", "name": "gemm_128", "operator": "aten::mm", "calls": 10.0, "device_s": 0.009}
        ]

    found = results(tmp_path, on_device)
    forward = operators.phases(found.groups()[0])[0]
    assert forward.on_device
    assert forward.by_kind()["matrix products"] / forward.seconds == pytest.approx(0.3)
    rows = EXPERIMENT.tabulate(found)["kernels"].rows
    assert (rows[0]["kernel"], rows[0]["operator"], rows[0]["share_ratio"]) == ("gemm_128", "aten::mm", 0.3)


def test_the_step_is_a_row_that_says_whether_the_phases_add_up(full: Results) -> None:
    table = EXPERIMENT.tabulate(full)["phases"]
    steps = [row for row in table.rows if row["phase"] == "whole step"]
    assert [row["sum_ratio"] for row in steps] == [pytest.approx(1 / 1.02)] * 2
    assert [row["slowdown_ratio"] for row in steps] == [pytest.approx(1.25)] * 2
    assert {row["warnings"] for row in table.rows} == {()}
    assert any(
        each == "Under the profiler the phases of every step add up to it within 10 %."
        for each in [*map(str, EXPERIMENT.find(full))]
    )


def test_phases_that_do_not_add_up_are_marked_and_said(tmp_path: Path) -> None:
    def slow(fields: dict[str, Any]) -> None:
        fields["samples"]["profiled_step_s"] = [1.5 * value for value in fields["samples"]["profiled_step_s"]]

    found = results(tmp_path, slow)
    text = markdown(EXPERIMENT.tabulate(found)["phases"])
    assert "parts and whole differ (the profiled phases' sum is 0.654× the step)" in text
    assert any(
        each == "Under the profiler the phases do not add up to the step within 10 % in a forward pass of nano and a "
        "training step of nano. Quality C: parts and whole differ (2 of 2 points)."
        for each in [*map(str, EXPERIMENT.find(found))]
    )


def test_the_parts_of_attention_are_a_table(full: Results) -> None:
    rows = EXPERIMENT.tabulate(full)["attention"].rows
    assert [row["phase"] for row in rows] == ["forward", "forward", "backward"]
    assert rows[0]["softmax_s"] == pytest.approx(0.006)
    assert rows[0]["share_ratio"] == pytest.approx(0.4)


def test_compiled_attention_has_no_parts(tmp_path: Path) -> None:
    grid = [{"size": ["nano"], "context": [128], "implementation": ["compiled"]}]
    table = EXPERIMENT.tabulate(results(tmp_path, grid=grid))["attention"]
    assert table.rows == []
    assert "compiled attention has none" in markdown(table)


def test_without_nsys_the_table_says_so(full: Results) -> None:
    table = EXPERIMENT.tabulate(full)["nsys"]
    assert "No kernels: nsys is not on the PATH." in markdown(table)
    assert "Nsight Systems was not used: nsys is not on the PATH." in [*map(str, EXPERIMENT.find(full))]


def test_with_nsys_its_kernels_are_told_per_step(tmp_path: Path) -> None:
    def seen(fields: dict[str, Any]) -> None:
        kernels = [{"name": "gemm<float>", "calls": 30, "device_s": 0.03}, {"name": "b", "calls": 3, "device_s": 0.01}]
        fields["details"]["nsys"] = {"report": "cell.nsys-rep", "steps": 3, "kernels": kernels}

    found = results(tmp_path, seen)
    table = EXPERIMENT.tabulate(found)["nsys"]
    assert table.rows[0]["calls"] == 10
    assert table.rows[0]["time_s"] == pytest.approx(0.01)
    assert "gemm&lt;float&gt;" in markdown(table)
    assert any(
        "Nsight Systems: gemm<float> takes the most kernel time in a" in each and "75 %" in each
        for each in [*map(str, EXPERIMENT.find(found))]
    )


def test_sentences_name_the_top_operators_calls_and_how_products_move(full: Results) -> None:
    text = "\n".join([*map(str, EXPERIMENT.find(full))])
    assert "In the forward pass the operator aten::mm takes the most time: 60 %." in text
    assert "In the optimizer the operator aten::sqrt takes the most time: 50 %." in text
    assert "A training step of nano calls 70 operators, 30 in the forward pass, 20 in the backward pass and" in text
    assert "From inference to a training step of nano the share of matrix products in the time stays the same: " in text
    assert "the same: from 60 % to 60 %." in text
    assert "the softmax takes the most time, 50 %" in text


def test_figures_show_every_phase(drawn: dict[str, Figure]) -> None:
    assert set(drawn) == set(EXPERIMENT.figure_names)
    ticks = [text.get_text().splitlines()[0] for text in drawn["shares"].axes[0].get_yticklabels()]
    assert ticks == ["forward", "forward", "backward", "optimizer"]
    assert len(drawn["operators"].axes) == 3


def test_nothing_measured_is_said_and_not_drawn(tmp_path: Path) -> None:
    empty = frames.load(States(synthetic.bench(tmp_path, profile=GRID)), EXPERIMENT)
    assert [*map(str, EXPERIMENT.find(empty))] == []
    assert all(str(figure.get_label()).startswith("No ") for figure in EXPERIMENT.plot(empty).values())
    assert {row["status"] for row in EXPERIMENT.tabulate(empty)["phases"].rows} == {"not measured"}
