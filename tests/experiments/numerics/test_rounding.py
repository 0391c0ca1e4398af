from __future__ import annotations

from stepbench.experiments.numerics import rounding

WAYS = {
    "fp32": "fp32 terms, fp32 sum",
    "fp16": "fp16 terms, fp16 sum",
    "fp32_sum_of_fp16_terms": "fp16 terms, fp32 sum",
    "fp32_sum_of_upcast_fp16_terms": "fp16 terms, upcast first, fp32 sum",
}
# What torch 2.13 gives on a CPU; the same figures were published for an RTX PRO 6000.
SCALARS = {
    "sum_fp32": 10.000133514404297,
    "sum_fp16": 9.953125,
    "sum_fp32_sum_of_fp16_terms": 10.00213623046875,
    "sum_fp32_sum_of_upcast_fp16_terms": 10.00213623046875,
    "sum_fp64": 9.999999999999831,
}


def test_the_sums_are_told_with_their_cause():
    worst, cause, upcast = rounding.sums(SCALARS, WAYS, 0.01, 1000)
    assert "“fp16 terms, fp16 sum” is off by most (−4.69×10⁻², 0.47 % of the sum)" in worst
    assert "“fp32 terms, fp32 sum” by least (1.34×10⁻⁴)" in worst
    assert "As a float16 the term is 0.0100021362. That alone explains 100 % of the error" in cause
    assert upcast.startswith("Upcasting each term first changes nothing")


def test_an_upcast_that_matters_is_told_so():
    changed = SCALARS | {"sum_fp32_sum_of_upcast_fp16_terms": 10.0}
    assert rounding.sums(changed, WAYS, 0.01, 1000)[2].startswith("Upcasting each term first changes the error to")


def test_a_sum_without_error_needs_no_cause():
    exact = SCALARS | {"sum_fp32_sum_of_fp16_terms": SCALARS["sum_fp64"]}
    assert not any("As a float16" in sentence for sentence in rounding.sums(exact, WAYS, 0.01, 1000))


def test_dtypes_are_grouped_and_norms_that_differ_are_named():
    scalars = {"parameters_dtype": "float32", "layer_norm_dtype": "float32", "rms_norm_dtype": "float16"}
    (sentence,) = rounding.dtypes(scalars, ["parameters", "layer_norm", "rms_norm"], "fp16")
    assert sentence.startswith("Under autocast to fp16, float32: parameters and layer norm; float16: rms norm.")
    assert "differently" in sentence
    same = scalars | {"rms_norm_dtype": "float32"}
    assert "differently" not in rounding.dtypes(same, ["parameters", "layer_norm", "rms_norm"], "fp16")[0]
