"""What of the tuning needs no GPU: candidates, and how new rows enter the table."""

from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from stepbench.kernels.triton import tune
from stepbench.kernels.triton.tiles import KERNELS, Tile, read_table


def row(head_dim: int, *, causal: bool, shape: list[int]) -> dict[str, Any]:
    return {"head_dim": head_dim, "dtype": "bfloat16", "causal": causal} | dict.fromkeys(KERNELS, shape)


def test_new_rows_replace_those_of_the_same_problem_and_no_others() -> None:
    old = [row(64, causal=True, shape=[1, 1, 4, 1]), row(64, causal=False, shape=[2, 2, 4, 1])]
    table = {"sm_90": {"origin": "before", "descriptors": True, "rows": old}, "sm_80": {"rows": []}}
    new = row(64, causal=True, shape=[3, 3, 4, 1])
    merged = tune.merged(table, "sm_90", [new], machine="NVIDIA H200")
    assert merged["sm_90"]["rows"] == [old[1], new]
    assert merged["sm_80"] is table["sm_80"]
    assert merged["sm_90"]["machine"] == "NVIDIA H200"
    assert merged["sm_90"]["descriptors"] is True
    assert merged["sm_90"]["date"].count("-") == 2
    assert "measured" in merged["sm_90"]["origin"]
    assert table["sm_90"]["origin"] == "before"


@pytest.mark.parametrize(
    ("figures", "clean"),
    [
        ({"spill_bytes": 0, "serialized": False, "shared_bytes": 1000}, True),
        ({"spill_bytes": 8, "serialized": False, "shared_bytes": 1000}, False),
        ({"spill_bytes": 0, "serialized": True, "shared_bytes": 1000}, False),
        ({"spill_bytes": 0, "serialized": False, "shared_bytes": 1001}, False),
    ],
)
def test_only_clean_candidates_are_timed(figures: dict[str, Any], clean: bool) -> None:
    assert tune.is_clean(lambda: figures, 1000) is clean


def test_a_candidate_that_the_compiler_dies_of_is_out() -> None:
    def die() -> dict[str, Any]:
        raise RuntimeError("PassManager::run failed")

    assert not tune.is_clean(die, 1000)


def test_what_is_shipped_is_among_the_candidates() -> None:
    for architecture in ("sm_90", "sm_100"):
        for shipped in read_table()[architecture]["rows"]:
            candidates = tune.SINGLE_CANDIDATES if shipped["dtype"] == "float32" else tune.CANDIDATES
            for kernel in KERNELS:
                if shipped[kernel] is not None:
                    assert Tile(*shipped[kernel]) in candidates[kernel], (shipped, kernel)


def test_a_result_that_is_further_off_than_the_plain_one_is_no_candidate() -> None:
    exact = torch.tensor([1.0, -2.0], dtype=torch.float64)
    plain = exact + 0.01
    assert tune.within(exact + 0.02, plain, exact, 0.001)
    assert not tune.within(exact + 0.03, plain, exact, 0.001)


def test_tuning_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="tuning needs a CUDA device, got none"):
        tune.tune(list(tune.shipped_problems()))


def test_the_problems_are_those_of_the_papers_figures() -> None:
    problems = list(tune.shipped_problems())
    assert {(p.head_dim, p.is_causal) for p in problems} == {(64, True), (64, False), (128, True), (128, False)}
    assert {(p.dtype, p.tokens, p.width) for p in problems} == {("bfloat16", 16_384, 2048)}


def test_float32_is_tuned_once_for_each_width_of_its_slices() -> None:
    problems = list(tune.shipped_problems((16, 32, 64, 128), ("float32",)))
    assert [(p.head_dim, p.is_causal) for p in problems] == [(16, True), (16, False), (64, True), (64, False)]
