"""What a sentence rests on: it cannot be made without rows, and its certainty follows from them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from tests.reporting import synthetic
from tests.reporting.conftest import results, sentences

from stepbench.experiments import experiment as experiments
from stepbench.pipeline.bench import Bench
from stepbench.reporting import rendering
from stepbench.reporting.evidence import Certainty, Evidence, ranked
from stepbench.reporting.findings import Finding, placed, said
from stepbench.reporting.points import Group, compared

SOURCE = synthetic.ROOT / "src" / "stepbench"
LOAD = {**synthetic.FACTS, "during": {"wall_s": 10.0, "cores": 2, "others_cpu_s": 9.0, "stolen_cpu_s": 0.0}}


def test_there_is_no_evidence_without_rows() -> None:
    for make in (lambda: Evidence(()), lambda: Evidence.of([]), lambda: Evidence.cells([])):
        with pytest.raises(ValueError, match="`records` must name the rows that a sentence speaks of, got none"):
            make()


def test_no_experiment_makes_a_finding_without_rows(everything: Bench) -> None:
    for name in everything.names:
        for finding in rendering.find(experiments.load(name), results(everything, name)):
            assert isinstance(finding, Finding)
            assert all((everything.root / path).is_file() for path in finding.evidence.records), finding.text


def test_sentences_are_made_by_the_one_function_that_asks_for_evidence() -> None:
    """`said` drops what rests on quality D; a `Finding` that is made elsewhere would not be."""
    makers, callers = set(), set()
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Finding", "findings.Finding"):
                makers.add(file.relative_to(SOURCE).as_posix())
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("said", "findings.said"):
                callers.add(file.parent.name)
    assert makers == {"reporting/findings.py"}
    assert len(callers) > 10


def groups_of(tmp_path: Path, *, processes: int = 1, environment: dict[str, object] | None = None) -> list[Group]:
    """Return two points, of which the second takes twice as long."""
    grid = [{"size": ["nano"], "context": [64, 128], "replicate": list(range(processes))}]
    bench = synthetic.bench(tmp_path, end_to_end=grid)
    for cell in bench.grid("end_to_end"):
        fields = {"samples": {"step_s": [cell.context / 64 * (1 + 0.001 * cell.replicate)] * 7}}
        slow = environment if cell.context == 128 else None
        synthetic.write(bench, "end_to_end", cell, **fields, **({"environment": slow} if slow else {}))
    return results(bench, "end_to_end").groups()


def test_one_process_each_is_no_verdict(tmp_path: Path) -> None:
    groups = groups_of(tmp_path)
    order, comparison = ranked(reversed(groups), "step_s")
    assert order[0].point["context"] == 64
    evidence = Evidence.ranking(order, "step_s", comparison)
    assert (evidence.certainty, evidence.caveat) == (Certainty.NO_VERDICT, "One process each: no verdict.")
    assert evidence.scope == "nano, batch 4, train step"
    assert len(evidence.records) == 2


def test_five_processes_a_side_give_a_verdict(tmp_path: Path) -> None:
    groups = groups_of(tmp_path, processes=5)
    evidence = Evidence.of(groups, "step_s", comparison=compared(*groups, "step_s"))
    assert (evidence.certainty, evidence.caveat, len(evidence.records)) == (Certainty.STATED, "", 10)


def test_a_few_processes_are_counted(tmp_path: Path) -> None:
    groups = groups_of(tmp_path, processes=3)
    evidence = Evidence.of(groups, "step_s", comparison=compared(*groups, "step_s"))
    assert evidence.caveat == "3 and 3 processes: no verdict, which needs 5 a side."


def test_a_row_of_quality_c_is_hedged(tmp_path: Path) -> None:
    groups = groups_of(tmp_path, environment=LOAD)
    evidence = Evidence.of(groups, "step_s")
    assert (evidence.certainty, evidence.quality) == (Certainty.HEDGED, "C")
    assert evidence.caveat == "Quality C: disturbed (1 of 2 points)."
    (finding,) = said("any", ["Something takes 2 s."], evidence)
    assert finding.text == "Something takes 2 s. Quality C: disturbed (1 of 2 points)."


def test_load_changes_no_bytes(tmp_path: Path) -> None:
    evidence = Evidence.of(groups_of(tmp_path, environment=LOAD))
    assert (evidence.certainty, evidence.warnings) == (Certainty.STATED, ())


def test_nothing_is_said_of_quality_d(tmp_path: Path) -> None:
    bench = synthetic.bench(
        tmp_path, end_to_end=[{"size": ["nano"], "context": [64, 128]}], ceilings=[{"operation": ["matmul"]}]
    )
    synthetic.fill(bench)
    assert "128" in sentences(bench, "end_to_end")
    (_, cell) = bench.grid("end_to_end")
    fields = synthetic.decoder_step(bench, cell, synthetic.np.random.default_rng(0), 0.01)
    fields["samples"] = {
        key: [1e-6 * value for value in values] if key.endswith("_s") else values
        for key, values in fields["samples"].items()
    }
    synthetic.write(bench, "end_to_end", cell, **fields)
    impossible = results(bench, "end_to_end").group(context=128)
    assert impossible is not None
    assert said("any", ["Something takes 2 s."], Evidence.of([impossible], "step_s")) == []
    told = rendering.find(experiments.load("end_to_end"), results(bench, "end_to_end"))
    about = [each for each in told if any("context~128" in path for path in each.evidence.records)]
    assert [each.kind for each in about] == ["warnings"]
    assert "1 exceeds a hardware limit (nano, context 128)" in about[0].text


def test_a_prediction_and_a_sum_are_not_disturbed_by_load(tmp_path: Path) -> None:
    bench = synthetic.bench(
        tmp_path,
        memory=[{"source": ["predicted"], "size": ["nano"], "context": [64]}],
        numerics=[{"case": ["accumulation"]}],
        optimizer_sharding=[
            {"source": ["predicted"], "variant": ["replicated"], "size": ["nano"], "context": [64], "batch": [1]}
        ],
    )
    for name in ("memory", "numerics", "optimizer_sharding"):
        for cell in bench.grid(name):
            synthetic.write(bench, name, cell, environment=LOAD, scalars={"peak_memory_bytes": 1})
        assert [group.marks for group in results(bench, name).groups()] == [()]


def test_a_sentence_names_what_it_holds_for_where_the_grid_has_several(tmp_path: Path) -> None:
    axes = {"seq": [128, 512], "head_dim": [64, 128], "dtype": ["fp32", "bf16"], "causal": [True, False]}
    bench = synthetic.bench(tmp_path, attention=[{"implementation": ["naive", "tiled"], **axes}])
    synthetic.fill(bench)
    found = rendering.find(experiments.load("attention"), results(bench, "attention"))
    fastest = next(each for each in found if each.kind == "fastest")
    assert fastest.sentence.endswith(" as long (head dim 64, causal, fp32).")
    assert "At 512 tokens" in fastest.sentence
    assert "batch" not in fastest.sentence  # the grid has one


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("A step takes 1 s.", "A step takes 1 s (nano, context 64, train step)."),
        ("A step of nano takes 1.5 s. It is slow.", "A step of nano takes 1.5 s (context 64, train step). It is slow."),
        (
            "A training step at a context of 64 takes 1 s (nano).",
            "A training step at a context of 64 takes 1 s (nano).",
        ),
        (
            "A step of nano-50k takes 1 s (context 640).",
            "A step of nano-50k takes 1 s (context 640, nano, context 64, train step).",
        ),
    ],
)
def test_what_a_sentence_names_is_not_named_twice(sentence: str, expected: str) -> None:
    evidence = Evidence(("a",), (("size", "nano"), ("context", 64), ("passes", "train_step")))
    assert placed(sentence, evidence) == expected
