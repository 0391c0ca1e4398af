"""The comparison is a file like others: another price renders it again, and measures nothing."""

from tests.workflow.bench_copy import Copy

COMPARISON = "report/comparison.md"
PRICE = {"per_device_hour": 2.5, "currency": "CHF", "date": "2026-11-21", "source": "a list"}


def test_another_price_renders_the_comparison_again_and_measures_nothing(measured: Copy) -> None:
    with measured.measuring():
        assert measured.snakemake(COMPARISON).code == 0
    file = measured.root / COMPARISON
    assert file.read_text().startswith("# Machines compared\n")
    before = file.stat().st_mtime_ns
    with measured.measuring():
        assert "Nothing to be done" in measured.snakemake(COMPARISON).err
    measured.set("prices", {"here": PRICE})
    with measured.measuring():
        done = measured.snakemake(COMPARISON)
    assert done.code == 0, done.err
    assert "measure_toy" not in done.err
    assert file.stat().st_mtime_ns > before
    with measured.measuring():
        assert "Nothing to be done" in measured.snakemake(COMPARISON).err
