from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tests.reporting import synthetic
from tests.reporting.conftest import results

from stepbench.reporting import peaks
from stepbench.reporting.peaks import Peaks, Rate
from stepbench.reporting.statistics import summarize


def test_the_measured_peak_is_the_fastest_size(full):
    found = results(full, "ceilings").peaks
    assert set(found.measured) == {"fp32", "bf16"}
    assert found.measured["fp32"].extent == 2048
    assert found.flops_per_s("fp32") == pytest.approx(synthetic.PEAK_FLOPS_PER_S["fp32"], rel=0.05)
    assert found.flops_per_s("fp16") is None
    assert found.copy.extent == 128
    assert found.copy.per_s == pytest.approx(synthetic.COPY_BYTES_PER_S, rel=0.05)
    rate = found.measured["fp32"]
    assert rate.low < rate.per_s < rate.high


def test_a_dtype_that_the_device_only_imitates_has_the_peak_of_fp32():
    rates = {
        dtype: Rate("matmul", dtype, 512, rate, summarize([[1.0]])) for dtype, rate in (("fp32", 9e10), ("bf16", 1e9))
    }
    assert Peaks(measured=rates).flops_per_s("bf16") == 9e10
    assert Peaks(measured={"bf16": rates["bf16"]}).flops_per_s("bf16") == 1e9
    assert Peaks(measured=rates).flops_per_s("fp16") is None


def test_stale_and_failed_ceilings_are_no_peaks(empty):
    matmul, _, copy = empty.grid("ceilings")
    synthetic.write(empty, "ceilings", copy, status="unsupported", reason="no copies here")
    samples = {"matmul_256_s": [1e-9] * 7}
    scalars = {"matmul_256_flops": 2 * 256**3}
    synthetic.write(empty, "ceilings", matmul, samples=samples, scalars=scalars, fingerprint={})
    assert results(empty, "ceilings").peaks == Peaks()


def test_the_vendors_figures_of_a_cpu_are_unknown(full):
    found = results(full, "ceilings").peaks
    assert found.vendor_flops_per_s == {}
    assert (found.vendor_bytes_per_s, found.vendor_source) == (None, None)


@pytest.mark.parametrize(
    ("name", "bf16", "bandwidth"),
    [
        ("NVIDIA A100-SXM4-40GB", 312e12, 1555e9),
        ("NVIDIA A100 80GB PCIe", 312e12, 1935e9),
        ("NVIDIA A100-SXM4-80GB", 312e12, 2039e9),
        ("NVIDIA H100 80GB HBM3", 989.4e12, 3350e9),
        ("NVIDIA H100 PCIe", 756e12, 2000e9),
        ("NVIDIA H200", 989.4e12, 4800e9),
        ("NVIDIA B200", 2250e12, 8000e9),
        ("NVIDIA L40S", 362.05e12, 864e9),
        ("NVIDIA L4", 121e12, 300e9),
        ("NVIDIA RTX A6000", 154.8e12, 768e9),
        ("NVIDIA GeForce RTX 3090", 71.2e12, 936.2e9),
        ("NVIDIA GH200 480GB", 989.4e12, 4000e9),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", 29.12e12, 256e9),
        ("NVIDIA GeForce RTX 4090", 165.2e12, 1008e9),
        ("NVIDIA GeForce RTX 5090", 209.5e12, 1792e9),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 503.8e12, 1792e9),
    ],
)
def test_known_devices_have_dense_figures_with_their_source(name, bf16, bandwidth, full, monkeypatch):
    monkeypatch.setattr(full, "host", dataclasses.replace(full.host, device_names=(name,)))
    found = results(full, "ceilings").peaks
    assert (found.vendor_flops_per_s["bf16"], found.vendor_bytes_per_s) == (bf16, bandwidth)
    assert found.vendor_flops_per_s["fp32"] <= found.vendor_flops_per_s["tf32"] <= bf16
    assert found.vendor_source


@pytest.mark.parametrize("name", ["NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA H2000", "AMD EPYC", "Apple M4", ""])
def test_a_device_that_only_resembles_a_known_one_is_unknown(name):
    assert peaks.vendor_figures(name) is None


# -- the device's own highest clock ------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", peaks._devices(), ids=lambda each: each["pattern"])
def test_the_vendors_figure_is_that_of_the_multiprocessors_at_a_clock_of_today(device):
    clocks = {
        dtype: figure / (device["multiprocessors"] * device["flops_per_cycle"][dtype])
        for dtype, figure in device["flops_per_s"].items()
    }
    assert set(device["flops_per_cycle"]) == set(clocks)
    assert all(1.4e9 < clock < 2.7e9 for clock in clocks.values()), clocks
    # Vendors reckon with a lower clock for tensor cores, at most an eighth lower.
    assert max(clocks.values()) < 1.16 * min(clocks.values()), clocks


def product(per_s: float) -> Rate:
    return Rate("matmul", "bf16", 8192, per_s, summarize([[1.0]]))


def test_a_gpu_that_clocks_above_the_vendors_figure_is_not_impossible():
    """Real RTX 5090s run above 2407 MHz, the clock of the published 209.5 TFLOP/s in bf16."""
    name, published = "NVIDIA GeForce RTX 5090", 209.5e12
    assert peaks.limit(product(230e12), name, None) == 1.05 * published
    assert peaks.limit(product(230e12), name, None, 3.09e9) == pytest.approx(170 * 512 * 3.09e9)
    assert peaks.limit(product(230e12), name, None, 2.0e9) == 1.05 * published
    assert peaks.limit(product(230e12), "NVIDIA of 2031", None, 3.09e9) is None


def test_the_clock_is_the_highest_of_what_the_records_devices_may_have():
    clocks = [{"max_sm_clock_hz": 1.98e9}, {"max_sm_clock_hz": None}, {"max_sm_clock_hz": 2.1e9}, {}]
    assert peaks.highest_clock_hz({"devices": clocks}) == 2.1e9
    assert [peaks.highest_clock_hz(each) for each in ({}, {"devices": None}, {"devices": [3]})] == [None] * 3


def test_the_peaks_tell_what_the_vendors_figures_become(empty, monkeypatch):
    monkeypatch.setattr(empty, "host", dataclasses.replace(empty.host, device_names=("NVIDIA H100 80GB HBM3",)))
    for cell in empty.grid("ceilings"):
        known = {**synthetic.FACTS, "devices": [{"max_sm_clock_hz": 1.98e9}]}
        rng = np.random.default_rng(0)
        synthetic.write(empty, "ceilings", cell, environment=known, **synthetic.ceilings(empty, cell, rng, 0.01))
    found = results(empty, "ceilings").peaks
    assert found.highest_clock_hz == 1.98e9
    assert found.vendor_flops_per_s["bf16"] == 989.4e12
    assert found.flops_per_s_at_highest_clock["bf16"] == pytest.approx(132 * 4096 * 1.98e9)
