"""Models and kernels of one's own in config.yaml: nothing is run, a file's content decides what is stale."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.pipeline.test_bench import ROOT, SETTINGS

from stepbench.experiments.attention.cell import Cell as Attention
from stepbench.experiments.end_to_end.cell import Cell as EndToEnd
from stepbench.experiments.ladder.cell import Cell as Ladder
from stepbench.pipeline import config, fingerprint, inputs
from stepbench.pipeline.bench import Bench
from stepbench.pipeline.config import ConfigError
from stepbench.pipeline.state import States

MODELS: dict[str, Any] = {
    "mine": {"module": "my_models.py:build", "blocks": "layers", "sharded": ["Linear"]},
    "theirs": {"hf": "config.json"},
    "qwen": {"d_model": 32, "d_ff": 64, "layers": 2, "heads": 4, "key_heads": 2, "qk_norm": True},
}
STEP: dict[str, Any] = {"size": ["nano", *MODELS], "context": [16], "attention": ["naive", "fast"]}
GRIDS = {
    "end_to_end": {"cpu": [STEP]},
    "attention": {"cpu": [{"implementation": ["fast"], "seq": [8], "head_dim": [8]}]},
}


@pytest.fixture
def open_bench(tmp_path: Path) -> Callable[..., Bench]:
    # Whoever runs or imports it fails.
    (tmp_path / "my_models.py").write_text("raise SystemExit('I was run')")
    (tmp_path / "my_kernel.py").write_text("raise SystemExit('I was run')")
    (tmp_path / "config.json").write_text("no JSON at all")

    def open_(**changes: Any) -> Bench:
        own = {"models": MODELS, "attention": {"fast": "my_kernel.py:attention"}, "experiments": GRIDS}
        return Bench({**SETTINGS, **own, **changes}, root=tmp_path, schema=ROOT / config.SCHEMA)

    return open_


def test_the_axis_size_takes_sizes_and_models(open_bench: Callable[..., Bench]) -> None:
    bench = open_bench()
    inputs.check_exist(bench)
    assert {cell.size for cell in bench.grid("end_to_end")} == {"nano", *MODELS}
    path = "results/here/attention/implementation~fast,seq~8,head_dim~8,heads~1,batch~1,dtype~fp32,causal~true"
    assert bench.locate(f"{path},replicate~0.json") == Attention("fast", 8, 8)
    with pytest.raises(ValueError, match=r"`implementation` must be one of naive, .*, flex, fast, got 'slow'"):
        bench.locate(f"{path.replace('fast', 'slow')},replicate~0.json")


def changed(open_bench: Callable[..., Bench], cell: Any, file: str, text: str) -> list[str]:
    """Return how a cell's fingerprint differs once a file holds another text."""
    before = States(open_bench()).fingerprint(cell)
    (open_bench().root / file).write_text(text)
    return [str(each) for each in fingerprint.difference(before, States(open_bench()).fingerprint(cell))]


@pytest.mark.parametrize(
    ("cell", "file", "key"),
    [
        (EndToEnd("mine", 16), "my_models.py", "size.content"),
        (EndToEnd("theirs", 16), "config.json", "size.content"),
        (EndToEnd("nano", 16, attention="fast"), "my_kernel.py", "kernel.content"),
        (Attention("fast", 8, 8), "my_kernel.py", "kernel.content"),
    ],
)
def test_the_content_of_a_file_is_part_of_the_fingerprint(
    open_bench: Callable[..., Bench], cell: Any, file: str, key: str
) -> None:
    (found,) = changed(open_bench, cell, file, "another text")
    assert found.startswith(f"definition: {key} was ")
    assert changed(open_bench, cell, file, "another text") == []


RUNGS: dict[str, Any] = {"own": {"attention": "fast"}, "foreach": {"optimizer": "adamw_foreach"}}
LADDER = {"ladder": {"cpu": [{"size": ["nano"], "context": [16], "rung": list(RUNGS)}]}}


def test_a_kernel_of_a_rung_is_part_of_the_fingerprint_and_must_exist(open_bench: Callable[..., Bench]) -> None:
    def opened() -> Bench:
        return open_bench(rungs=RUNGS, experiments=LADDER)

    own, above = Ladder("nano", 16, "own"), Ladder("nano", 16, "foreach")
    before = {cell: States(opened()).fingerprint(cell) for cell in (own, above)}
    assert opened().definition(own)["kernels"]["fast"]["function"] == "my_kernel.py:attention"
    assert "kernels" not in opened().definition(above)
    (opened().root / "my_kernel.py").write_text("another text")
    (found,) = map(str, fingerprint.difference(before[own], States(opened()).fingerprint(own)))
    assert found.startswith("definition: kernels.fast.content was ")
    assert fingerprint.difference(before[above], States(opened()).fingerprint(above)) == []
    (opened().root / "my_kernel.py").unlink()
    with pytest.raises(ConfigError, match=r"^`my_kernel\.py` must be a file that exists$"):
        inputs.check_exist(opened())


def test_a_kernel_that_was_kept_below_counts_above() -> None:
    below = {
        Ladder("nano", 16, "own"): SimpleNamespace(
            samples={"step_s": [1.0], "base_s": [2.0]}, scalars={"tokens_per_step": 1, "base_tokens_per_step": 1}
        )
    }
    settings = {"rungs": RUNGS, "attention": {"fast": "my_kernel.py:attention"}}
    learned = Ladder("nano", 16, "foreach").learned(settings, below)
    assert learned["kernels"] == {"fast": {"function": "my_kernel.py:attention"}}


def test_a_typo_in_a_rungs_attention_is_named(open_bench: Callable[..., Bench]) -> None:
    with pytest.raises(ConfigError, match=r"`rungs.own.attention` must be one of naive, .*, fast, got 'fest'"):
        open_bench(rungs={"own": {"attention": "fest"}, "foreach": {}}, experiments=LADDER)


def test_a_cell_that_names_no_such_file_does_not_depend_on_it(open_bench: Callable[..., Bench]) -> None:
    for file in ("my_models.py", "my_kernel.py", "config.json"):
        assert changed(open_bench, EndToEnd("nano", 16), file, "another text") == []
        assert changed(open_bench, EndToEnd("qwen", 16), file, "another text") == []


def test_the_version_of_transformers_belongs_to_a_model_that_it_builds(open_bench: Callable[..., Bench]) -> None:
    assert set(open_bench().definition(EndToEnd("theirs", 16))["size"]) == {"hf", "content", "transformers"}


def test_a_file_that_does_not_exist_is_named(open_bench: Callable[..., Bench]) -> None:
    bench = open_bench()
    (bench.root / "my_models.py").unlink()
    with pytest.raises(ConfigError, match=r"^`my_models\.py` must be a file that exists$"):
        inputs.check_exist(bench)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": {"nano": MODELS["mine"]}}, "`models.nano` must have a name that no size has"),
        (
            {"models": {"x": {"module": "my_models.py"}}},
            "`models.x.module` must be path.py:function, got ",
        ),
        (
            {"models": {"x": {"module": "a.py:b", "layers": 3}}},
            "must hold only the fields module, sharded, ",
        ),
        ({"models": {"x": {"hf": "folder"}}}, "`models.x.hf` must be the path of a .json file, got 'folder'"),
        ({"models": {"x": {"hf": "a.json", "blocks": "a b"}}}, "`models.x.blocks` must be a dotted name of a module"),
        (
            {"models": {"x": {"hf": "a.json", "sharded": "Linear"}}},
            "`models.x.sharded` must be a list of ",
        ),
        ({"models": {"x": {"d_model": 32}}}, "`models.x.heads` must be given, got no heads"),
        ({"models": {"x": 3}}, "`models.x` must be a mapping of d_model, "),
        ({"attention": {"sdpa": "a.py:b"}}, "`attention.sdpa` must have a name that no implementation has"),
        ({"attention": {"x": "a.b"}}, "`attention.x` must be path.py:function, got 'a.b'"),
    ],
)
def test_a_mistake_in_a_model_or_kernel_is_one_line(
    open_bench: Callable[..., Bench], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        open_bench(**changes, experiments=SETTINGS["experiments"])
    assert message in str(caught.value).splitlines()[0 if "heads" not in message else -1]


@pytest.mark.parametrize(
    ("axis", "value", "message"),
    [
        ("size", "nine", "names the size 'nine', which does not exist (did you mean mine?); valid are nano, "),
        (
            "attention",
            "fest",
            "names the attention 'fest', which does not exist (did you mean fast?); valid ",
        ),
    ],
)
def test_a_name_that_does_not_exist_is_named(
    open_bench: Callable[..., Bench], axis: str, value: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        open_bench(experiments={"end_to_end": {"cpu": [{**STEP, axis: [value]}]}})
    assert message in str(caught.value)
