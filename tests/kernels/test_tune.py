"""What of the tuning needs no GPU: candidates, their order, what is kept, and how new rows enter the table."""

from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from stepbench.kernels.triton import candidates, tiles, tune, tuned
from stepbench.kernels.triton.candidates import Candidate, Problem
from stepbench.kernels.triton.limits.grid import Speed
from stepbench.kernels.triton.limits.machine import Machine
from stepbench.kernels.triton.limits.predict import Limits
from stepbench.kernels.triton.tiles import KERNELS, Tile, plan_for, read_table
from stepbench.kernels.triton.tuned import Timing


def row(head_dim: int, *, causal: bool, shape: list[int]) -> dict[str, Any]:
    return {"head_dim": head_dim, "dtype": "bfloat16", "causal": causal} | dict.fromkeys(KERNELS, shape)


def test_new_rows_replace_those_of_the_same_problem_and_no_others() -> None:
    old = [row(64, causal=True, shape=[1, 1, 4, 1]), row(64, causal=False, shape=[2, 2, 4, 1])]
    table = {"sm_90": {"origin": "before", "descriptors": True, "rows": old}, "sm_80": {"rows": []}}
    new = row(64, causal=True, shape=[3, 3, 4, 1])
    merged = tuned.merged(table, "sm_90", [new], machine="NVIDIA H200")
    assert merged["sm_90"]["rows"] == [old[1], new]
    assert merged["sm_80"] is table["sm_80"]
    assert merged["sm_90"]["machine"] == "NVIDIA H200"
    assert merged["sm_90"]["descriptors"] is True
    assert merged["sm_90"]["date"].count("-") == 2
    assert "measured" in merged["sm_90"]["origin"]
    assert table["sm_90"]["origin"] == "before"


def test_tiles_for_grouped_heads_are_kept() -> None:
    grouped = {"backward_keys": [32, 64, 4, 3]}
    table = {"sm_90": {"descriptors": True, "rows": [row(64, causal=True, shape=[1, 1, 4, 1]) | {"grouped": grouped}]}}
    new = row(64, causal=True, shape=[3, 3, 4, 1])
    assert tuned.merged(table, "sm_90", [new], machine="")["sm_90"]["rows"] == [{**new, "grouped": grouped}]


def test_a_row_of_another_version_of_triton_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    old = [row(64, causal=True, shape=[1, 1, 4, 1]), row(64, causal=True, shape=[2, 2, 4, 1]) | {"triton": "3.6"}]
    table = {"sm_90": {"descriptors": True, "rows": old}}
    new = row(64, causal=True, shape=[3, 3, 4, 1])
    monkeypatch.setattr(tuned, "triton_series", lambda: "3.7")
    assert tuned.merged(table, "sm_90", [new], machine="")["sm_90"]["rows"] == [old[1], new]
    monkeypatch.setattr(tuned, "triton_series", lambda: "3.6")
    assert tuned.merged(table, "sm_90", [new], machine="")["sm_90"]["rows"] == [old[0], {**new, "triton": "3.6"}]


@pytest.mark.parametrize(
    ("figures", "clean"),
    [
        ({"spill_bytes": 0, "serialized": False, "shared_bytes": 1000}, True),
        ({"spill_bytes": 8, "serialized": False, "shared_bytes": 1000}, False),
        ({"spill_bytes": 0, "serialized": True, "shared_bytes": 1000}, True),
        ({"spill_bytes": 0, "serialized": False, "shared_bytes": 1001}, False),
    ],
)
def test_only_clean_candidates_are_timed_and_serialized_ones_too(figures: dict[str, Any], clean: bool) -> None:
    assert candidates.is_clean(figures, 1000) is clean


OPTIONS: dict[str, Any] = {"architecture": "sm_90", "head_dim": 64, "dtype": "bfloat16", "descriptors": True}


def test_a_candidate_that_the_compiler_dies_of_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(**options: Any) -> None:
        raise RuntimeError("PassManager::run failed")

    monkeypatch.setattr(candidates, "compile_variant", die)
    assert candidates.appraise(kernel="forward", tile=Tile(64, 64, 4, 2), **OPTIONS) == []


@pytest.mark.parametrize(
    ("registers", "programs", "warps", "cap"),
    [(172, 2, 4, 168), (106, 2, 8, 80), (158, 1, 8, 128), (255, 1, 8, None), (128, 1, 8, None), (187, 1, 8, None)],
)
def test_the_cap_that_lets_one_more_program_fit(registers: int, programs: int, warps: int, cap: int | None) -> None:
    assert candidates.cap_for_one_more(registers, programs, warps) == cap


def test_a_serialized_and_a_capped_candidate_are_predicted() -> None:
    """128 × 128 on 8 warps at head dim 64: with 128 registers ptxas serializes its products, and two programs fit."""
    version = pytest.importorskip("triton").__version__
    if not version.startswith("3.7."):
        pytest.skip(f"triton {version} gives this kernel other registers than 3.7")
    plain, capped = candidates.appraise(kernel="forward", tile=Tile(128, 128, 8, 3), **OPTIONS)
    assert (plain.tile.maxnreg, capped.tile.maxnreg) == (None, 128)
    assert capped.predicted is not None
    assert capped.predicted.programs == 2
    problem = Problem(64)
    assert [each.tile for each in candidates.in_order([plain, capped], problem, plain.tile)] == [
        capped.tile, plain.tile,
    ]  # fmt: skip


def test_the_likeliest_are_few_and_with_the_shipped_tile() -> None:
    shipped = Tile(16, 16, 4, 1)
    assert candidates.likeliest("forward", 64, "float32", shipped) == [shipped]
    assert candidates.likeliest("forward", 80, "bfloat16", shipped) == [shipped]
    for (kernel, head_dim), shapes in candidates.LIKELIEST.items():
        found = candidates.likeliest(kernel, head_dim, "bfloat16", shipped)
        assert found == [*(Tile(*shape) for shape in shapes), shipped]
        assert len(found) <= 6
        assert all(Tile(*shape[:4]) in candidates.CANDIDATES[kernel] for shape in shapes)
        assert not set(candidates.others(kernel, "bfloat16", found)) & set(found)
        own = getattr(plan_for("sm_90", head_dim, "bfloat16", True, series="3.7"), kernel)
        assert own in found[:-1], "what is shipped was chosen by the same prediction"


def test_without_a_prediction_what_is_shipped_comes_first() -> None:
    tiles_ = [Tile(64, 64, 4, 2), Tile(64, 32, 4, 2), Tile(32, 32, 4, 2)]
    ordered = candidates.in_order([Candidate(tile) for tile in tiles_], Problem(64), tiles_[1])
    assert [each.tile for each in ordered] == [tiles_[1], tiles_[0], tiles_[2]]


def test_what_is_shipped_is_among_the_candidates() -> None:
    for architecture in ("sm_90", "sm_100"):
        for shipped in read_table()[architecture]["rows"]:
            known = candidates.SINGLE_CANDIDATES if shipped["dtype"] == "float32" else candidates.CANDIDATES
            for kernel in KERNELS:
                if shipped[kernel] is not None:
                    assert Tile(*shipped[kernel][:4]) in known[kernel], (shipped, kernel)


def test_every_pass_for_16_bits_is_offered_four_stages() -> None:
    assert set(candidates.CANDIDATES) == set(KERNELS)
    assert all({tile.stages for tile in found} == {2, 3, 4} for found in candidates.CANDIDATES.values())


# -- the search, with a GPU that is not there --------------------------------------------------------------------------


class Pool:
    """Stands in for the pool of compilers: appraises at once."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, function: Any, **options: Any) -> Future[list[Candidate]]:
        done: Future[list[Candidate]] = Future()
        done.set_result([Candidate(options["tile"], predicted(options["tile"]))])
        return done

    def shutdown(self, **_: Any) -> None: ...


def predicted(tile: Tile) -> Limits:
    speed = Speed(100.0, 0.0, 10.0, ((float(tile.rows),), (float(tile.rows),)), masked=1, busy={}, waits={})
    return Limits("forward", 64, tile, 1, {}, {}, 1.0, speed, Machine())


PROBLEMS = [Problem(64, is_causal=causal, context=512, tokens=1024) for causal in (True, False)]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of tiles to search for on a pretended H100, of few candidates."""
    path = tmp_path / "tiles.json"
    tiles.write_table(read_table(), path)
    likely, every = [(128, 64, 4, 2), (64, 64, 4, 2)], [(n, 64, 4, 2) for n in (64, 32, 16, 256)]
    monkeypatch.setattr(candidates, "LIKELIEST", {(kernel, 64): likely for kernel in KERNELS})
    monkeypatch.setattr(candidates, "CANDIDATES", {kernel: [Tile(*shape) for shape in every] for kernel in KERNELS})
    monkeypatch.setattr(tune, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a test")
    return path


def test_the_likeliest_of_all_kernels_are_timed_first_and_each_problem_is_kept(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[int]]] = []
    written: list[Any] = []

    def timed(problem: Problem, kernel: str, plan: Any, found: list[Candidate], **_: float) -> list[Timing]:
        asked.append((kernel, [each.tile.rows for each in found]))
        times = [each.predicted_s(problem) or 0.0 for each in found]
        assert times == sorted(times)
        return [Timing(each.tile, 1.0 / each.tile.rows, each.predicted_s(problem)) for each in found]

    write = tiles.write_table
    monkeypatch.setattr(tune, "timed", timed)
    monkeypatch.setattr(tune, "write_table", lambda table, to: (written.append(table), write(table, to)))
    lines: list[str] = []
    assert tune.tune(PROBLEMS, path=table, report=lines.append) == 0

    first, rest = asked[: len(asked) // 2], asked[len(asked) // 2 :]
    assert [kernel for kernel, _ in first] == [*KERNELS, *KERNELS]
    shipped = plan_for("sm_90", 64, "bfloat16", True)
    for kernel, rows in first:
        assert set(rows) == {64, 128, getattr(shipped, kernel).rows}
    for _, rows in rest:
        assert set(rows) == {16, 32, 256}
    assert len(written) == 4  # each problem twice
    plan = plan_for("sm_90", 64, "bfloat16", True, table)
    assert plan.forward.rows == 256  # the fastest of all, whatever was predicted
    kept = next(each for each in read_table(table)["sm_90"]["rows"] if "seconds" in each and each["causal"])
    assert kept["seconds"]["forward"] == 1 / 256
    assert kept["predicted_s"]["forward"] > 0
    assert [shape[0] for shape, *_ in kept["timed"]["forward"]] == [*first[0][1], *rest[0][1]]
    assert all("ms predicted, best of" in line for line in lines)


def test_a_search_ends_at_its_deadline_and_the_next_one_begins_with_what_it_left(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    searched: list[bool] = []

    def timed(problem: Problem, _kernel: str, _plan: Any, found: list[Candidate], *, deadline: float) -> list[Timing]:
        searched.append(problem.is_causal)
        fitting = [each for each in found if (now.__setitem__(0, now[0] + 1.0) or now[0]) <= deadline]
        return [Timing(each.tile, 1.0, None) for each in fitting]

    monkeypatch.setattr(tune, "timed", timed)
    monkeypatch.setattr(tune.time, "monotonic", lambda: now[0])
    # Three candidates of each of five kernels take 15 s; the second problem is cut short in its second kernel.
    assert tune.tune(PROBLEMS, path=table, deadline=19.0) == 3
    section = read_table(table)["sm_90"]
    measured = [tuned.is_measured(section, "a test", [problem]) for problem in PROBLEMS]
    assert measured == [True, False]
    assert not tuned.is_measured(section, "another GPU", PROBLEMS[:1])
    searched.clear()
    tune.tune(PROBLEMS, path=table, deadline=now[0] + 30.0)
    assert searched[:5] == [False] * 5
    assert tuned.is_measured(read_table(table)["sm_90"], "a test", PROBLEMS)


def test_tiles_of_another_gpu_are_not_replaced_without_a_word(table: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tune, "timed", lambda *_, **__: [Timing(Tile(64, 64, 4, 2), 1.0, None)])
    lines: list[str] = []
    tune.tune(PROBLEMS[:1], path=table, report=lines.append)
    assert not any("replaced" in line for line in lines)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "another GPU")
    tune.tune(PROBLEMS[:1], path=table, report=lines.append)
    assert "sm_90: tile shapes that were measured on a test are replaced" in lines


def test_a_table_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tiles.json"
    tiles.write_table(read_table(), path)
    before = path.read_text()

    def write_half(self: Path, text: str, **_: str) -> None:
        with self.open("w") as file:
            file.write(text[: len(text) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_text", write_half)
    with pytest.raises(KeyboardInterrupt):
        tiles.write_table({}, path)
    assert path.read_text() == before


def test_no_tile_that_computes_correctly_is_told() -> None:
    with pytest.raises(RuntimeError, match="one tile must compute forward correctly, got none"):
        tuned.fastest([], "forward")


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


def test_a_head_dim_that_no_kernel_is_compiled_for_is_not_tuned() -> None:
    with pytest.raises(ValueError, match=r"`head_dim` must be a multiple of 16, which others are padded to, got 72"):
        list(tune.shipped_problems((64, 72)))
