"""What changed: which sides are compared, what differs between them, and the document about it."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.pipeline.test_bench import ROOT
from tests.reporting import synthetic

from stepbench.cli import main as command_line
from stepbench.comparison import changes, changes_document, known, trend, trend_figure
from stepbench.comparison.changes import Change, Changes
from stepbench.pipeline import config, history, records
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.state import States
from stepbench.reporting import figures
from stepbench.reporting.statistics import Verdict

EXPERIMENT = "end_to_end"
GRID = [{"size": ["nano"], "context": [64], "replicate": [0, 1, 2, 3, 4]}, {"size": ["nano"], "context": [128]}]
KERNEL = "stepbench.kernels.naive"
LOADED = {"during": {"wall_s": 10.0, "cores": 2, "others_cpu_s": 15.0, "stolen_cpu_s": 0.0}}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return synthetic.bench(tmp_path, **{EXPERIMENT: GRID})


def measure(bench: Bench, day: int, seconds: float, *, only: int | None = None, **differs: Mapping[str, Any]) -> None:
    """Measure the cells of one context, or all: what differs from today's fingerprint is given by part."""
    for cell in bench.grid(EXPERIMENT):
        if only is not None and cell.context != only:
            continue
        today = States(bench).fingerprint(cell)
        software = {**today["software"], **differs.get("software", {})}
        fingerprint = {part: {**values, **differs.get(part, {})} for part, values in today.items()}
        record = records.Record(
            experiment=EXPERIMENT,
            cell=cell.values,
            status="ok",
            fingerprint=fingerprint,
            started=f"2026-01-{day:02d}T10:00:0{cell.replicate}.000+00:00",
            duration_s=1.0,
            samples={"step_s": [seconds * (1 + cell.replicate / 1000)] * 7},
            environment={**synthetic.FACTS, "git_commit": f"{day:02d}" * 20, **software, **differs.get("facts", {})},
        )
        history.replace(bench.root / bench.path(cell), record)


def found(bench: Bench, since: str | None = None) -> Changes:
    return changes.find(known.load(States(bench)), bench.root, since)


def of(every: Changes, context: int) -> Change:
    (change,) = (each for each in every.found if dict(each.point.values)["context"] == context)
    return change


def built(bench: Bench) -> changes_document.Document:
    points = known.load(States(bench))
    return changes_document.build(points, changes.find(points, bench.root))


# -- what is compared --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("now", "told"), [("n1", False), ("n2", True)])
def test_a_table_says_where_old_and_new_ran_on_different_nodes(bench: Bench, now: str, told: bool) -> None:
    measure(bench, 1, 1.0, software={"torch": "2.12.1"}, facts={"node": "n1"})
    measure(bench, 2, 0.5, facts={"node": now})
    shown = changes_document.markdown(changes_document.build(known.load(States(bench)), found(bench)))
    assert ("on different nodes" in shown) == told
    assert ("n1, n2" in shown) == told


def test_an_upgrade_is_the_cause_and_five_a_side_give_a_verdict(bench: Bench) -> None:
    measure(bench, 1, 0.10, software={"torch": "2.12.1"})
    measure(bench, 2, 0.12)
    every = found(bench)
    assert (len(every.found), every.redefined, every.waiting) == (2, 0, 0)
    torch = States(bench).fingerprint(bench.grid(EXPERIMENT)[0])["software"]["torch"]
    assert {changes.causes(each.causes) for each in every.found} == {f"torch 2.12.1 → {torch}"}
    five = of(every, 64)
    assert five.comparison.verdict is Verdict.SLOWER
    assert five.comparison.ratio == pytest.approx(100 / 120)
    assert (len(five.old), len(five.new), five.settles) == (5, 5, None)
    one = of(every, 128)
    assert one.comparison.verdict is Verdict.UNCLEAR
    assert one.settles == ("stepbench ab --a-python '<a Python with torch 2.12.1>' end_to_end size=nano,context=128")
    assert every.has(Verdict.SLOWER)
    assert not every.has(Verdict.FASTER)


def test_a_changed_kernel_is_the_cause_and_can_be_measured_in_turn(bench: Bench) -> None:
    measure(bench, 1, 0.10, source={KERNEL: "0"})
    measure(bench, 2, 0.10)
    one = of(found(bench), 128)
    assert changes.causes(one.causes) == "module kernels/naive"
    assert one.settles == "stepbench ab --a 0101010101 end_to_end size=nano,context=128"


def test_the_largest_comes_first_and_causes_stay_together(bench: Bench) -> None:
    measure(bench, 1, 0.10, only=64, source={KERNEL: "0"})
    measure(bench, 1, 0.05, only=128, source={KERNEL: "0", "stepbench.gone": "0"})
    measure(bench, 2, 0.11)
    groups = found(bench).by_cause()
    assert [[dict(each.point.values)["context"] for each in group] for group in groups] == [[128], [64]]
    assert changes.causes(groups[0][0].causes) == "module gone (gone); module kernels/naive"


def test_many_modules_are_named_by_the_first_few(bench: Bench) -> None:
    measure(bench, 1, 0.10, source={f"stepbench.old.m{number}": "0" for number in range(6)})
    measure(bench, 2, 0.10)
    text = changes.causes(found(bench).found[0].causes)
    assert text == "module old/m0 (gone); module old/m1 (gone); module old/m2 (gone); 3 more modules"


def test_other_definitions_and_other_machines_are_not_compared(bench: Bench) -> None:
    measure(bench, 1, 0.10, only=64, definition={"vocabulary": 7})
    measure(bench, 1, 0.10, only=128, machine={"threads": 64})
    measure(bench, 2, 0.10)
    assert found(bench) == Changes((), redefined=2)
    assert "2 points measured before only with other settings or on another machine" in built(bench).last


def test_what_has_no_number_of_today_waits(bench: Bench) -> None:
    measure(bench, 1, 0.10, software={"torch": "2.12.1"})
    measure(bench, 2, 0.10, only=64)
    every = found(bench)
    assert (len(every.found), every.waiting) == (1, 1)


def test_old_records_that_still_stand_are_on_the_old_side(bench: Bench) -> None:
    """Of five processes three were measured again: two of the old side are in their cells' files."""
    measure(bench, 1, 0.10, only=64, software={"torch": "2.12.1"})
    for cell in bench.grid(EXPERIMENT)[:1]:
        path = bench.root / bench.path(cell)
        now = dataclasses.replace(
            records.read(path), fingerprint=States(bench).fingerprint(cell), started="2026-01-02T00:00:00.000+00:00"
        )
        history.replace(path, now)
    change = of(found(bench), 64)
    assert (len(change.old), len(change.new)) == (5, 1)


def test_a_disturbed_measurement_counts_only_where_there_is_no_other(bench: Bench) -> None:
    measure(bench, 1, 0.50, software={"torch": "2.12.1"}, facts=LOADED)
    measure(bench, 2, 0.10, only=64, software={"torch": "2.12.1"})
    measure(bench, 3, 0.10)
    every = found(bench)
    assert of(every, 64).comparison.verdict is Verdict.SAME
    assert of(every, 64).warnings == ()
    assert [str(mark) for mark in of(every, 128).warnings] == [
        "disturbed (old 75 % of the CPU used by other processes)"
    ]


def test_a_record_of_before_an_axis_was_added_is_compared(bench: Bench) -> None:
    measure(bench, 1, 0.10, only=128, source={KERNEL: "0"})
    cell = next(each for each in bench.grid(EXPERIMENT) if each.context == 128)
    path = bench.root / bench.path(cell)
    old = records.read(path)
    path.unlink()
    without = {axis: value for axis, value in old.cell.items() if axis != "optimizer"}
    records.write(path.with_name("size~nano,context~128.json"), dataclasses.replace(old, cell=without))
    measure(bench, 2, 0.12, only=128)
    assert of(found(bench), 128).comparison.ratio == pytest.approx(100 / 120)
    (entry,) = known.earlier(States(bench), cell)
    assert (entry.record.samples, entry.path.name) == (old.samples, "size~nano,context~128.json")


def test_another_peak_of_memory_is_told_without_a_verdict(bench: Bench) -> None:
    for day, gib, differs in ((1, 1.0, {"source": {KERNEL: "0"}}), (2, 1.5, {})):
        measure(bench, day, 0.1, only=128, **differs)
        cell = next(each for each in bench.grid(EXPERIMENT) if each.context == 128)
        path = bench.root / bench.path(cell)
        peak = {"peak_memory_bytes": int(gib * 2**30)}
        records.write(path, dataclasses.replace(records.read(path), samples={}, scalars=peak))
    every = found(bench)
    assert every.found == ()
    assert [(peak.ratio, changes.causes(peak.causes)) for peak in every.peaks] == [(1.5, "module kernels/naive")]
    text = changes_document.markdown(built(bench))
    assert "The peak memory of 1 point is another one than before." in text
    assert "| size nano, context 128 | 1.00 GiB | 1.50 GiB | 1.50× | module kernels/naive |" in text


# -- since -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def four(bench: Bench) -> Bench:
    """Four versions on four days: torch 2.1, torch 2.12.1, another kernel, today."""
    measure(bench, 1, 0.10, software={"torch": "2.1.0"}, source={KERNEL: "0"})
    measure(bench, 2, 0.11, software={"torch": "2.12.1", "triton": "3.6.0"}, source={KERNEL: "0"})
    measure(bench, 3, 0.12, source={KERNEL: "0"})
    measure(bench, 4, 0.13)
    return bench


@pytest.mark.parametrize(
    ("since", "seconds"),
    [
        (None, 0.12),
        ("2026-01-03", 0.11),
        ("2026-01-02", 0.10),
        ("2.1", 0.10),
        ("2.12", 0.11),
        ("2.12.1", 0.11),
        ("torch=2.12", 0.11),
        ("triton=3.6", 0.11),
        ("0303030", 0.12),
        ("0101010101", 0.10),
    ],
)
def test_the_old_side_is_what_was_measured_last_as_asked_for(four: Bench, since: str | None, seconds: float) -> None:
    old = of(found(four, since), 128).old
    assert [each.record.samples["step_s"][0] for each in old] == [seconds]


def test_what_is_no_date_commit_or_version_is_refused(four: Bench) -> None:
    with pytest.raises(ValueError, match=r"`--since` must be a date \(2026-11-30\), a commit or a version"):
        found(four, "yesterday")


def test_nothing_was_measured_then(four: Bench) -> None:
    assert found(four, "2025-01-01").found == ()
    assert found(four, "9.9").found == ()


# -- the document and the figure ---------------------------------------------------------------------------------------


def test_the_document_survives_its_file_and_says_what_is_in_it(four: Bench, tmp_path: Path) -> None:
    made = built(four)
    (tmp_path / "changes.json").write_text(changes_document.dump(made))
    assert changes_document.dump(changes_document.read(tmp_path / "changes.json")) == changes_document.dump(made)
    text = changes_document.markdown(made, figure=changes_document.picture("results/here/figures/changes/trend"))
    assert text.startswith("# What changed\n\n2 points measured by other code or software before: 1 SLOWER, 1 UNCLEAR.")
    assert "## module kernels/naive" in text
    assert "Commit 0303030303 before, 0404040404 now." in text
    assert "`stepbench ab --a 0303030303 end_to_end size=nano,context=128`" in text
    assert "![trend](../results/here/figures/changes/trend.svg)" in text
    assert made.trends == 2


def test_a_machine_without_a_past_says_so(bench: Bench) -> None:
    measure(bench, 1, 0.1)
    text = changes_document.markdown(built(bench), figure="x")
    assert "Nothing was measured with other code or software before" in text
    assert "Over time" not in text


def test_a_trend_has_three_points_and_marks_what_changed(four: Bench, tmp_path: Path) -> None:
    trends = trend.find(known.load(States(four)))
    assert len(trends) == 2
    steps = trends[0].steps
    assert [step.day for step in steps] == ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"]
    assert steps[0].causes == ""
    assert "torch 2.1.0 → 2.12.1" in steps[1].causes
    assert steps[3].causes == "module kernels/naive"
    drawn = trend_figure.trend(trends)
    assert [axes.get_title(loc="left") for axes in drawn.axes] == [f"end_to_end: {each.of.words}" for each in trends]
    written = [text.get_text() for text in drawn.axes[0].texts]
    assert "module kernels/naive" in written
    figures.write({"trend": drawn}, tmp_path / "figures")
    assert (tmp_path / "figures/trend.svg").stat().st_size > 1000


def test_two_points_are_no_trend(bench: Bench) -> None:
    measure(bench, 1, 0.10, software={"torch": "2.12.1"})
    measure(bench, 2, 0.12)
    trends = trend.find(known.load(States(bench)))
    assert trends == []
    assert "No point was measured on 3 days" in str(trend_figure.trend(trends).get_label())


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ((), 0),
        (("--fail-if", "slower"), 1),
        (("--fail-if", "faster"), 0),
        (("--fail-if", "faster", "--fail-if", "unclear"), 1),
        (("--since", "nowhere"), 2),
    ],
)
def test_the_command_prints_a_table_for_each_cause_and_fails_where_it_is_asked_to(
    four: Bench,
    words: tuple[str, ...],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (four.root / "config.yaml").write_text(yaml.safe_dump(four.settings, sort_keys=False))
    shutil.copy(ROOT / config.SCHEMA, four.root / config.SCHEMA)
    monkeypatch.chdir(four.root)
    assert command_line.main(["changes", *words]) == code
    captured = capsys.readouterr()
    if code < 2:
        assert "module kernels/naive" in captured.out
        assert "SLOWER" in captured.out
        assert "2 points measured by other code or software before: 1 SLOWER, 1 UNCLEAR." in captured.err
