from __future__ import annotations

import math

import pytest

from stepbench.reporting import units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (math.nan, "–"),
        (math.inf, "–"),
        (0.0, "0.00 s"),
        (2.5, "2.50 s"),
        (0.0123456, "12.3 ms"),
        (3.2e-5, "32.0 µs"),
        (4e-9, "4.00 ns"),
        (1234.5, "1234 s"),
    ],
)
def test_seconds(value, text):
    assert units.seconds(value) == text


def test_an_uncertainty_decides_the_digits():
    assert units.seconds(0.0123456, 0.00002) == "12.346 ms"
    assert units.seconds(0.0123456, 0.002) == "12.3 ms"
    assert units.seconds(0.0123456, 0.008) == "12 ms"


@pytest.mark.parametrize(
    ("value", "text"),
    [(128_600_000, "128.6 M"), (3_406_800_000, "3406.8 M"), (9_999, "10.0 k"), (7, "7"), (None, "–")],
)
def test_counts(value, text):
    assert units.count(value) == text


def test_memory_is_binary_and_bandwidth_decimal():
    assert units.byte_count(2**30) == "1.00 GiB"
    assert units.byte_count(1500 * 2**20) == "1.46 GiB"
    assert units.byte_rate(4.8e12) == "4.80 TB/s"
    assert units.flop_rate(66.7e9) == "66.7 GFLOP/s"


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        ((1.8714, 1.80, 1.95), "1.87× [1.80, 1.95]"),
        ((1.00123, 0.99912, 1.00341), "1.0012× [0.9991, 1.0034]"),
        ((1.3, 1e-6, 1e6), "1.30× [very wide]"),
        ((2.0, None, None), "2.00×"),
        ((20.27, None, None), "20.3×"),
        ((428.3, None, None), "428×"),
        ((None, None, None), "–"),
    ],
)
def test_ratios(bounds, text):
    assert units.ratio(*bounds) == text


def test_a_column_shares_the_unit_of_its_smallest_value():
    assert units.pick(units.SECONDS, [48.3, 0.0032, None, 0.0]).name == "ms"
    assert units.pick(units.SECONDS, [None]).name == "s"
    assert (
        units.middle(48.3, 47.0, 49.5, per=1e-3)
        == "48\N{NARROW NO-BREAK SPACE}300 [47\N{NARROW NO-BREAK SPACE}000, 49\N{NARROW NO-BREAK SPACE}500]"
    )


def test_mean_and_deviation_have_equal_decimals():
    assert units.plus_minus(0.0519, 0.0012, per=1e-3) == "51.9 ± 1.2"
    assert units.plus_minus(0.0519, None, per=1e-3) == "51.9"
    assert units.plus_minus(None, 1.0) == "–"


def test_percent_and_scientific():
    assert units.percent(0.4123) == "41 %"
    assert units.percent(0.0512) == "5.1 %"
    assert units.scientific(-0.046875) == "−4.69×10⁻²"
    assert units.scientific(0.0) == "0"
    assert units.exactly(10.000133514404297) == "10.0001335"
