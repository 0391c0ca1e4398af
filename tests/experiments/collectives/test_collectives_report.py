"""Tables and findings of collectives, made from records that nobody measured."""

import pytest
from tests.reporting.conftest import first_table, results, sentences

from stepbench.pipeline.bench import Bench
from stepbench.reporting import points


def test_the_slowest_rank_decides_and_the_skew_is_told(on_ranks: Bench) -> None:
    group = results(on_ranks, "collectives").groups()[0]
    record = group.records[0]
    slowest = points.processes([record], "call_s")[0]
    assert slowest == [max(pair) for pair in zip(*record.samples["call_s"], strict=True)]
    row = first_table(on_ranks, "collectives").rows[0]
    assert 0 < row["skew_ratio"] < 0.1
    assert row["algorithm_bytes_per_s"] == pytest.approx(4096 / (1e-4 + 4.096e-6), rel=0.05)


def test_sentences_tell_latency_and_bandwidth(on_ranks: Bench) -> None:
    text = sentences(on_ranks, "collectives")
    assert "The highest bus bandwidth is" in text
    assert "All-reduce on 2 ranks (gloo): the fit gives 10" in text
    assert "; 4.00 KiB took 10" in text
    assert "Latency plus bandwidth fits every operation with three or more message sizes to within" in text
