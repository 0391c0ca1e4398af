"""What each experiment measures, at sizes that take no time; the pipeline around it is in tests/workflow."""

import dataclasses
import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from stepbench.experiments import experiment as experiments
from stepbench.experiments.attention import measure as attention
from stepbench.experiments.attention.cell import Cell as Attention
from stepbench.experiments.ceilings import measure as ceilings
from stepbench.experiments.ceilings.cell import Cell as Ceilings
from stepbench.experiments.end_to_end import measure as end_to_end
from stepbench.experiments.end_to_end.cell import Cell as EndToEnd
from stepbench.experiments.numerics import measure as numerics
from stepbench.experiments.numerics.cell import Cell as Numerics
from stepbench.experiments.warmup import measure as warmup
from stepbench.experiments.warmup.cell import Cell as Warmup
from stepbench.measure import energy
from stepbench.measure.measurement import Measurement, Setting, UnsupportedError

SETTING = Setting(
    device="cpu",
    protocol={"warmup_steps": 2, "measured_steps": 3, "seed": 0, "threads": 1},
    definition={"vocabulary": 50, "size": {"d_model": 16, "d_ff": 24, "layers": 1, "heads": 2}},
)
STEP = EndToEnd("nano", context=8, batch=2)


@pytest.fixture(autouse=True)
def _default_precision() -> Any:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


# -- what all of them declare ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", experiments.names())
def test_a_declaration_is_whole(name: str) -> None:
    experiment = experiments.load(name)
    assert experiment.module == f"stepbench.experiments.{name}"
    assert experiment.title
    assert experiment.question.endswith("?")
    assert experiment.table_names
    assert experiment.figure_names
    assert set(experiment.settings) <= {"protocol", "vocabulary", "data"}
    assert set(experiment.reads) <= set(experiments.names()) - {name}
    assert dataclasses.is_dataclass(experiment.cell)
    assert experiment.cell.__dataclass_params__.frozen


@pytest.mark.parametrize("name", sorted(set(experiments.names()) - {"numerics", "memory", "fits"}))
def test_what_is_timed_has_replicates_from_the_start(name: str) -> None:
    field = dataclasses.fields(experiments.load(name).cell)[-1]
    assert (field.name, field.default) == ("replicate", 0)


def test_an_experiment_that_is_none_is_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"an experiment must be one of attention, ceilings, .*, got 'experiment'"):
        experiments.load("experiment")


# -- a decoder's step --------------------------------------------------------------------------------------------------


def counted(*names: str) -> dict[str, int]:
    """Return how many samples there are of each kind, of three regions with each of these names."""
    return {f"{name}_{unit}": 3 for name in names for unit in ("s", "page_faults", "system_s")}


def clocked(found: Measurement) -> dict[str, list[float]]:
    """Return the samples that are neither faults nor system time, which may be 0."""
    return {key: found.samples[key] for key in found.samples if not key.endswith(("_page_faults", "_system_s"))}


@pytest.mark.parametrize(
    ("passes", "phases"),
    [
        ("forward", ["forward"]),
        ("forward_backward", ["forward", "backward"]),
        ("train_step", ["forward", "backward", "optimizer"]),
    ],
)
def test_a_step_is_timed_by_phases_and_whole(passes: Any, phases: list[str]) -> None:
    found = end_to_end.measure(dataclasses.replace(STEP, passes=passes), SETTING)
    counts = {name: len(values) for name, values in found.samples.items()}
    steps = counted(*phases, "step") | {f"warmup_{phase}_s": 2 for phase in phases}
    assert counts == {**steps, "loss_nats": 2 + 3 + 3}
    assert all(value > 0 for values in clocked(found).values() for value in values)
    assert found.scalars["tokens_per_step"] == 16
    assert found.scalars["forward_flops"] > 0
    assert found.protocol["warmup_steps"] == 2
    assert found.protocol["effective_threads"] == torch.get_num_threads()


def test_a_steps_energy_is_counted_over_more_steps_than_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    counter = SimpleNamespace(name="a counter", least_s=0.01, joules=lambda: 2.0 * next(ticks))
    monkeypatch.setattr(energy, "counter_of", lambda _: counter)
    found = end_to_end.measure(STEP, SETTING)
    assert found.scalars["step_energy_joules"] == 2.0  # it moves when it is read, once a step
    assert found.scalars["energy_region_s"] >= 0.01
    assert found.protocol["energy_counter"] == "a counter"
    assert len(found.samples["loss_nats"]) == 2 + 2 * 3
    assert "step_energy_joules" not in warmup.measure(Warmup("nano", 1), SETTING).scalars


def test_the_same_cell_and_seed_give_the_same_losses_to_the_bit() -> None:
    one, other = (end_to_end.measure(STEP, SETTING).samples["loss_nats"] for _ in range(2))
    assert one == other
    seeded = dataclasses.replace(SETTING, protocol={**SETTING.protocol, "seed": 1})
    assert end_to_end.measure(STEP, seeded).samples["loss_nats"] != one


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_whose_attention_returns_zeros_gets_no_time(monkeypatch: pytest.MonkeyPatch, precision: Any) -> None:
    from stepbench.kernels import api

    real = api._implementation("tiled")
    monkeypatch.setitem(api._LOADED, "tiled", dataclasses.replace(real, call=lambda q, k, v, **_: (q + k + v) * 0))
    step = EndToEnd("nano", context=64, batch=1, attention="tiled", precision=precision, passes="forward")
    size = {"d_model": 128, "d_ff": 512, "layers": 4, "heads": 4}
    setting = dataclasses.replace(SETTING, definition={"vocabulary": 10_000, "size": size})
    with pytest.raises(ArithmeticError, match=r"the first loss must be within .* nats, got"):
        end_to_end.measure(step, setting)


@pytest.mark.parametrize("attention", ["naive", "sdpa"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_way_to_compute_on_a_cpu_computes_the_same(attention: Any, precision: Any) -> None:
    expected = end_to_end.measure(STEP, SETTING).samples["loss_nats"]
    found = end_to_end.measure(dataclasses.replace(STEP, attention=attention, precision=precision), SETTING)
    tolerance = 1e-5 if precision == "fp32" else 0.05
    assert found.samples["loss_nats"] == pytest.approx(expected, rel=tolerance)


def test_what_a_cpu_cannot_do_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="tf32"):
        end_to_end.measure(dataclasses.replace(STEP, precision="tf32"), SETTING)


@pytest.mark.parametrize("steps", [0, 4])
def test_warm_up_is_the_cells_and_its_samples_are_kept(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    monkeypatch.setattr(warmup, "CONTEXT", 8)
    monkeypatch.setattr(warmup, "BATCH", 2)
    found = warmup.measure(Warmup("nano", steps), SETTING)
    assert len(found.samples["warmup_forward_s"]) == len(found.samples["warmup_optimizer_s"]) == steps
    assert len(found.samples["step_s"]) == 3
    assert len(found.samples["loss_nats"]) == steps + 6
    assert found.protocol["warmup_steps"] == steps


# -- ceilings ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "MATRIX_DIMS", {"cpu": (16, 32)})
    monkeypatch.setattr(ceilings, "COPY_MIB", {"cpu": (1, 2)})
    monkeypatch.setattr(ceilings, "MIN_REGION_S", 1e-5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_product_is_timed_at_each_size(dtype: Any) -> None:
    found = ceilings.measure(Ceilings("matmul", dtype), SETTING)
    assert {name: len(values) for name, values in found.samples.items()} == counted("matmul_16", "matmul_32")
    assert found.scalars == {"matmul_16_flops": 2 * 16**3, "matmul_32_flops": 2 * 32**3}
    assert all(loops & (loops - 1) == 0 for loops in found.protocol["loops"].values())


@pytest.mark.usefixtures("small")
def test_a_copy_moves_each_byte_twice() -> None:
    found = ceilings.measure(Ceilings("copy"), SETTING)
    assert found.scalars == {"copy_1_mib_moved_bytes": 2 * 2**20, "copy_2_mib_moved_bytes": 2 * 2 * 2**20}
    assert all(value > 0 for values in clocked(found).values() for value in values)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_product_that_returns_zeros_gets_no_time(monkeypatch: pytest.MonkeyPatch, dtype: Any) -> None:
    monkeypatch.setattr(torch, "matmul", lambda _a, _b, out: out.zero_())
    with pytest.raises(ArithmeticError, match=r"a product of n = 16 must be within .* of float64, got"):
        ceilings.measure(Ceilings("matmul", dtype), SETTING)


@pytest.mark.usefixtures("small")
def test_a_copy_that_is_none_gets_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "copy_", lambda out, _source: out.zero_())
    with pytest.raises(ArithmeticError, match="a copy of 1048576 bytes must equal its source"):
        ceilings.measure(Ceilings("copy"), SETTING)


@pytest.mark.usefixtures("small")
def test_sizes_after_one_that_takes_too_long_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ceilings, "MAX_CALL_S", 0.0)
    assert list(clocked(ceilings.measure(Ceilings("matmul"), SETTING))) == ["matmul_16_s"]


def test_tf32_on_a_cpu_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="tf32"):
        ceilings.measure(Ceilings("matmul", "tf32"), SETTING)


# -- numerics ----------------------------------------------------------------------------------------------------------


def test_sums_in_low_precision_drift_as_they_must() -> None:
    """0.01 a thousand times; what half precision loses is arithmetic, and the same on every machine."""
    found = numerics.measure(Numerics("accumulation"), SETTING)
    sums = found.scalars
    assert sums["sum_fp64"] == pytest.approx(10, abs=1e-12)
    assert sums["sum_fp32"] == pytest.approx(10.0001335, abs=1e-6)
    assert sums["sum_fp16"] == 9.953125
    # The term itself is rounded to half precision, whatever it is summed in.
    assert sums["sum_fp32_sum_of_fp16_terms"] == sums["sum_fp32_sum_of_upcast_fp16_terms"]
    assert sums["sum_fp32_sum_of_fp16_terms"] == pytest.approx(10.00213623, abs=1e-6)
    assert len(found.details["terms"]) == len(found.details["sums_fp64"]) == 100
    assert {len(curve) for curve in found.details["sums"].values()} == {100}
    assert [curve[-1] for curve in found.details["sums"].values()] == [
        sums[f"sum_{way}"] for way in found.details["sums"]
    ]


@pytest.mark.parametrize(("case", "low"), [("autocast_bf16", "bfloat16"), ("autocast_fp16", "float16")])
def test_autocast_chooses_dtypes(case: Any, low: str) -> None:
    """CUDA's policy is asked of fake tensors here; that LayerNorm is float32 there alone is in torch's own lists."""
    found = numerics.measure(Numerics(case), SETTING).scalars
    assert found["cpu_parameters_dtype"] == found["cpu_gradients_dtype"] == "float32"
    for device, norm in (("cpu", low), ("cuda", "float32")):
        assert found[f"{device}_first_layer_dtype"] == found[f"{device}_logits_dtype"] == low
        assert found[f"{device}_layer_norm_dtype"] == found[f"{device}_rms_norm_dtype"] == norm
        assert found[f"{device}_loss_dtype"] == "float32"
    assert not torch.is_autocast_enabled("cuda")


# -- one attention operator --------------------------------------------------------------------------------------------

OPERATOR = Attention("naive", seq=24, head_dim=8, heads=2)


@pytest.mark.parametrize("implementation", ["naive", "tiled", "sdpa_math", "sdpa_flash"])
@pytest.mark.parametrize("causal", [True, False])
def test_an_operator_is_timed_and_checked_against_float64(implementation: str, causal: bool) -> None:
    found = attention.measure(dataclasses.replace(OPERATOR, implementation=implementation, causal=causal), SETTING)
    assert {name: len(values) for name, values in found.samples.items()} == counted(
        "forward", "backward", "forward_backward"
    )
    assert found.scalars["forward_flops"] == 4 * 2 * 24 * 24 * 8 // (2 if causal else 1)
    assert found.scalars["backward_flops"] == found.scalars["forward_flops"] * 5 // 2
    assert all(0 < found.scalars[f"{name}_error"] < 1e-5 for name in ("o", "dq", "dk", "dv"))
    assert found.protocol["l2_flush_bytes"] is None


def test_what_is_kept_for_the_backward_pass_is_counted_once() -> None:
    operand = 2 * 24 * 8 * 4
    tiled = attention.measure(dataclasses.replace(OPERATOR, implementation="tiled"), SETTING)
    assert tiled.scalars["saved_bytes"] == 4 * operand + 2 * 24 * 4  # q, k, v, o and the logsumexp
    naive = attention.measure(OPERATOR, SETTING)
    assert naive.scalars["saved_bytes"] >= 3 * operand + 2 * 24 * 24 * 4


def test_an_operator_that_the_device_lacks_is_unsupported() -> None:
    with pytest.raises(UnsupportedError, match="triton needs a CUDA device, got cpu"):
        attention.measure(dataclasses.replace(OPERATOR, implementation="triton"), SETTING)


def test_an_operator_that_computes_something_else_gets_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from stepbench.kernels import api

    def zeros(q: Any, k: Any, v: Any, **_: Any) -> Any:
        return (q + k + v) * 0

    real = api._implementation("tiled")
    monkeypatch.setitem(api._LOADED, "tiled", dataclasses.replace(real, call=zeros))
    with pytest.raises(ArithmeticError, match=r"o must be within 2 × .* of float64, got an error of"):
        attention.measure(dataclasses.replace(OPERATOR, implementation="tiled"), SETTING)
