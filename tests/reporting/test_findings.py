from __future__ import annotations

from tests.reporting import synthetic
from tests.reporting.conftest import results

from stepbench.reporting import columns, findings, general_findings
from stepbench.reporting.marks import MEANING, Mark


def test_lists_are_read_aloud():
    assert findings.listing(["a"]) == "a"
    assert findings.listing(["a", "b"]) == "a and b"
    assert findings.listing(["a", "b", "c", "d"]) == "a, b, c and d"
    assert findings.listing(list("abcdefg")) == "a, b, c and 4 more"
    assert (findings.plural(1, "cell"), findings.plural(3, "cell")) == ("1 cell", "3 cells")
    assert (findings.between(["1", "2"]), findings.between(["1", "1"])) == ("1 to 2", "1")


def test_gaps_are_told_by_kind_with_reasons(tmp_path):
    bench = synthetic.bench(tmp_path, warmup=[{"size": ["nano"], "warmup": list(range(8))}])
    cells = bench.grid("warmup")
    synthetic.write(bench, "warmup", cells[0], status="oom", reason="MemoryError: a")
    synthetic.write(bench, "warmup", cells[1], status="oom", reason="MemoryError: b")
    synthetic.write(bench, "warmup", cells[2], status="timeout", reason="no result after 9 s")
    synthetic.write(bench, "warmup", cells[3], status="unsupported", reason="no such thing")
    synthetic.write(bench, "warmup", cells[4], status="error", reason="ValueError: x")
    synthetic.write(bench, "warmup", cells[5], fingerprint={})
    (bench.root / bench.path(cells[6])).write_text("{")
    sentences = [*map(str, general_findings.gaps(results(bench, "warmup")))]
    assert sentences[0] == "2 of 8 cells ran out of memory: MemoryError: a and MemoryError: b."
    assert sentences[1] == "1 of 8 cells exceeded the time limit: no result after 9 s."
    assert sentences[2] == "1 of 8 cells is not supported here: no such thing."
    assert sentences[3] == "1 of 8 cells failed: ValueError: x."
    assert sentences[4].startswith("1 of 8 cells is stale and left out of every finding: ")
    assert sentences[5].startswith("1 of 8 cells has an unreadable record: ")
    assert sentences[6] == "1 of 8 cells has not been measured yet."


def test_nothing_is_said_where_nothing_is_missing(full):
    assert general_findings.gaps(results(full, "warmup")) == []


def test_every_mark_can_be_told_of_one_point_and_of_several():
    assert general_findings.MARKED.keys() == MEANING.keys()


def test_a_point_in_a_row_of_names_is_told_by_what_is_unusual(full):
    groups = results(full, "end_to_end").groups()
    names = [general_findings.apart(group, groups) for group in groups]
    assert len(set(names)) == len(names)
    assert max(name.count(",") for name in names) < max(columns.where(group, groups).count(",") for group in groups)


def test_noise_is_told_by_kind(full):
    groups = results(full, "end_to_end").groups()
    quiet = [(group, ()) for group in groups]
    assert general_findings.noise(quiet) == [f"None of the {len(groups)} points measured has a warning."]
    marked = [(groups[0], (Mark("noisy", "CV 20 %"), Mark("impossible", "2×"))), *quiet[1:]]
    (sentence,) = general_findings.noise(marked)
    assert "1 is noisy (nano, context 64" in sentence
    assert "1 exceeds a hardware limit" in sentence
    assert general_findings.noise([]) == []
