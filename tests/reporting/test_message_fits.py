"""Latency and bandwidth are fitted to the messages of collectives."""

import pytest

from stepbench.reporting import message_fits


def test_latency_and_bandwidth_are_found_again() -> None:
    sizes = (4096, 2**20, 2**24, 2**28)
    latency, rate, residual = message_fits.fit([(size, 2e-5 + size / 3e9) for size in sizes])
    assert latency == pytest.approx(2e-5)
    assert rate == pytest.approx(3e9)
    assert residual == pytest.approx(0, abs=1e-9)


def test_a_fit_says_how_far_it_is_off() -> None:
    points = [(4096, 1e-4), (2**20, 2e-3), (2**24, 1e-2)]
    latency, rate, residual = message_fits.fit(points)
    assert residual == pytest.approx(max(abs((latency + size / rate) / seconds - 1) for size, seconds in points))
    assert message_fits.fit(points[:2])[2] is None


def test_a_latency_below_nothing_is_none() -> None:
    latency, rate, _ = message_fits.fit([(2**20, 1e-3), (2**24, 20e-3)])
    assert latency == 0.0
    assert 2**20 / 1e-3 >= rate >= 2**24 / 20e-3


@pytest.mark.parametrize(
    ("operation", "factor"), [("all_reduce", 1.75), ("all_gather", 0.875), ("reduce_scatter", 0.875), ("broadcast", 1)]
)
def test_bus_bandwidth_is_that_of_nccl_tests(operation: str, factor: float) -> None:
    assert message_fits.bus_factor(operation, 8) == factor
