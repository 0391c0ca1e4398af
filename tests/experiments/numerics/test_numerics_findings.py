from __future__ import annotations

from tests.reporting.conftest import markdown, results, sentences

from stepbench.experiments import experiment as experiments
from stepbench.experiments.numerics import cases, findings

# What torch 2.13 gives on a CPU; the same figures were published for an RTX PRO 6000.
SCALARS = {
    "sum_fp32": 10.000133514404297,
    "sum_fp16": 9.953125,
    "sum_fp32_sum_of_fp16_terms": 10.00213623046875,
    "sum_fp32_sum_of_upcast_fp16_terms": 10.00213623046875,
    "sum_fp64": 9.999999999999831,
}


def test_the_sums_are_told_with_their_cause():
    worst, cause, upcast = findings._sums(SCALARS)
    assert "“fp16 terms, fp16 sum” has the largest error (−4.69×10⁻², 0.47 % of the sum)" in worst
    assert "“fp32 terms, fp32 sum” the smallest (1.34×10⁻⁴)" in worst
    assert "As a float16 the term is 0.0100021362. This rounding explains 100 % of the error" in cause
    assert upcast.startswith("Upcasting each term first does not change a bit of the sum")


def test_an_upcast_that_matters_is_told_so():
    changed = SCALARS | {"sum_fp32_sum_of_upcast_fp16_terms": 10.0}
    assert findings._sums(changed)[2].startswith("Upcasting each term first changes the error to")


def test_a_sum_without_error_needs_no_cause():
    exact = SCALARS | {"sum_fp32_sum_of_fp16_terms": SCALARS["sum_fp64"]}
    assert not any("As a float16" in sentence for sentence in findings._sums(exact))


def test_dtypes_are_grouped_and_norms_that_differ_are_named():
    scalars = dict.fromkeys((f"cuda_{tensor}_dtype" for tensor in cases.TENSORS), "float16")
    scalars |= {"cuda_parameters_dtype": "float32", "cuda_layer_norm_dtype": "float32"}
    (sentence,) = findings._dtypes(scalars, "fp16", ["cpu", "cuda"])
    assert sentence.startswith("Under autocast to fp16 on CUDA, float32: parameters and layer norm; float16: first la")
    assert "differently" in sentence
    alike = findings._dtypes(scalars | {"cuda_rms_norm_dtype": "float32"}, "fp16", ["cpu", "cuda"])
    assert "differently" not in alike[0]


def test_devices_whose_autocast_differs_are_told(full):
    text = sentences(full, "numerics")
    assert "Autocast to fp16 differs between devices: layer norm is float16 on a CPU and float32 on CUDA." in text
    assert "Autocast to bf16 differs between devices: rms norm is bfloat16 on a CPU and float32 on CUDA." in text
    assert "gradients is" not in text  # nobody has asked CUDA for them
    lines = markdown(experiments.load("numerics").tabulate(results(full, "numerics"))["autocast"]).splitlines()
    assert "| tensor | fp16 on a CPU | fp16 on CUDA | bf16 on a CPU | bf16 on CUDA |" in lines[4]
    assert any(line.startswith("| layer norm | float16 | float32 | bfloat16 | float32 |") for line in lines)
    assert any(line.startswith("| gradients | float32 | – | float32 | – |") for line in lines)
