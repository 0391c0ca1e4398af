from __future__ import annotations

import dataclasses

from tests.reporting import synthetic
from tests.reporting.conftest import markdown, results

from stepbench.experiments.ceilings import findings
from stepbench.experiments.ceilings import tables as rate_tables


def records(found):
    return [record for group in found.groups() for record in group.records]


def test_peaks_name_the_fastest_size_and_the_vendor(full):
    found = results(full, "ceilings")
    vendor = dataclasses.replace(
        found.peaks, vendor_flops_per_s={"fp32": 2.4e11}, vendor_bytes_per_s=4e10, vendor_source="a sheet of paper"
    )
    table = rate_tables.peaks(dataclasses.replace(found, peaks=vendor))
    matmul, bf16, copy = table.rows
    assert (matmul["extent"], copy["extent"]) == (2048, 128)
    assert 0.45 < matmul["vendor_ratio"] < 0.55
    assert 0.45 < copy["vendor_ratio"] < 0.55
    assert bf16["vendor_ratio"] is None
    assert "a sheet of paper" in table.caption
    assert "GFLOP/s" in markdown(table)


def test_every_size_has_a_rate(full):
    assert len(rate_tables.rates(results(full, "ceilings")).rows) == 4 + 4 + 3


def test_a_cell_without_numbers_keeps_its_row(empty):
    synthetic.write(empty, "ceilings", empty.grid("ceilings")[1], status="unsupported", reason="no bf16")
    text = markdown(rate_tables.rates(results(empty, "ceilings")))
    assert "unsupported: no bf16" in text
    assert text.count("not measured") == 2


def test_findings_doubt_a_peak_at_the_largest_size(full):
    found = results(full, "ceilings")
    sentences = [*map(str, findings.find(found))]
    assert sum("the peak may be higher" in sentence for sentence in sentences) == 2
    assert any(sentence.startswith("The peak in bf16 is 2.") for sentence in sentences)
    assert any(sentence.startswith("A copy of 128 MiB moves") for sentence in sentences)


def test_a_peak_below_the_largest_size_is_not_doubted_and_a_cached_copy_is_named(empty):
    fp32, _, copy = empty.grid("ceilings")
    synthetic.write(
        empty,
        "ceilings",
        fp32,
        samples={"matmul_256_s": [0.001] * 7, "matmul_512_s": [0.1] * 7},
        scalars={"matmul_256_flops": 2 * 256**3, "matmul_512_flops": 2 * 512**3},
    )
    synthetic.write(
        empty,
        "ceilings",
        copy,
        samples={"copy_1_mib_s": [0.0001] * 7, "copy_128_mib_s": [0.1] * 7},
        scalars={"copy_1_mib_moved_bytes": 2**21, "copy_128_mib_moved_bytes": 2**28},
    )
    found = results(empty, "ceilings")
    sentences = [*map(str, findings.find(found))]
    assert not any("may be higher" in sentence for sentence in sentences)
    assert any("because it fits a cache" in sentence for sentence in sentences)


def test_nothing_measured_gives_no_finding(empty):
    assert [*map(str, findings.find(results(empty, "ceilings")))] == []
