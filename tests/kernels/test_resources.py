"""What the shipped kernels cost: the kept figures of all, and a spread compiled anew for GPUs that are not here."""

import inspect
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

triton = pytest.importorskip("triton")

from stepbench.architectures import TABLE_OF  # noqa: E402
from stepbench.kernels.triton import compiling, resources  # noqa: E402 - after the check that there is a triton
from stepbench.kernels.triton.compiling import compile_variant  # noqa: E402
from stepbench.kernels.triton.limits import predict  # noqa: E402
from stepbench.kernels.triton.resources import ARCHITECTURES, SHARED_BYTES, with_figures  # noqa: E402
from stepbench.kernels.triton.tiles import Tile  # noqa: E402

Row = dict[str, Any]
FIGURES = resources.read_figures()
ROWS: list[Row] = FIGURES["rows"]
COSTS = ("registers", "spill_bytes", "shared_bytes", "programs", "instructions", "serialized")
LIMITS = "limits"  # of the kernels that the prediction knows
SERIES = ("3.6", "3.7")
INSTALLED = ".".join(triton.__version__.split(".")[:2])
# What is compiled anew below: the figures of the installed Triton, those of the default one where it has none.
COMPILED = resources.read_figures(resources.figures_path(INSTALLED)) if INSTALLED in SERIES else FIGURES
EXPECTED = {"sm_90": "wgmma", "sm_100": "tcgen05", "sm_103": "tcgen05", "sm_75": None}  # of the others: mma
SPREAD: dict[tuple[str, str, int], list[Row]] = defaultdict(list)
for row in COMPILED["rows"]:
    if row["head_dim"] in (64, 80) and (row["dtype"], row["head_dim"]) != ("float16", 80):
        SPREAD[row["architecture"], row["dtype"], row["head_dim"]].append(row)


def name(row: Row) -> str:
    return "-".join(str(row[key]) for key in ("architecture", "kernel", "dtype", "head_dim", "causal"))


def variant_of(row: Row) -> Row:
    return {key: value for key, value in row.items() if key not in (*COSTS, LIMITS)}


# -- the kept figures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("series", SERIES)
def test_the_kept_figures_are_of_every_shipped_variant(series: str) -> None:
    figures = resources.read_figures(resources.figures_path(series))
    shipped = [v for architecture in ARCHITECTURES for v in resources.shipped_variants(architecture, series)]
    assert figures["triton"].startswith(series)
    assert figures["band"] == predict.BAND
    assert [variant_of(row) for row in figures["rows"]] == shipped
    assert {row["architecture"] for row in figures["rows"]} == set(ARCHITECTURES)
    assert all(row.keys() >= set(COSTS) for row in figures["rows"])


@pytest.mark.parametrize("series", SERIES)
def test_shipped_kernels(series: str) -> None:
    for row in resources.read_figures(resources.figures_path(series))["rows"]:
        assert row["spill_bytes"] == 0, name(row)
        assert not row["serialized"], name(row)
        assert row["shared_bytes"] <= SHARED_BYTES[row["architecture"]][0], name(row)
        assert 16 < row["registers"] <= (row["maxnreg"] or 255), name(row)  # fewer are a kernel that does nothing
        assert row["programs"] >= 1, name(row)
        if row["kernel"] == "row_statistics" or row["architecture"] == "sm_75":
            assert not row["instructions"], name(row)
        elif row["dtype"] == "float32" and row["kernel"] == "backward_fused":
            assert row["instructions"], name(row)  # its products may be too narrow for a group of four warps
        else:
            assert row["instructions"][EXPECTED.get(row["architecture"], "mma")] > 0, name(row)


@pytest.mark.parametrize("series", SERIES)
def test_what_limits_a_kernel_is_kept_where_it_is_known(series: str) -> None:
    for row in resources.read_figures(resources.figures_path(series))["rows"]:
        known = row["architecture"] == "sm_90" and row["dtype"] != "float32" and row["kernel"] in predict.PRODUCTS
        assert (LIMITS in row) == known
        if known:
            assert 0.1 < row[LIMITS]["busy"]["tensor"] < 1
            assert list(row[LIMITS]["tflops"]) == [str(context) for context in predict.CONTEXTS]
            assert sum(row[LIMITS]["waits"].values()) + row[LIMITS]["busy"]["issue"] == pytest.approx(1, abs=0.01)


def assert_same(found: dict[str, Any], row: dict[str, Any]) -> None:
    """Hold figures against kept ones; predicted rates differed by 0.1 % from one compilation to the next."""
    assert found | {"limits": None} == row | {"limits": None}
    if row.get("limits"):
        assert found["limits"]["tflops"] == pytest.approx(row["limits"]["tflops"], rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["sm_80", "sm_90", "sm_100"])
def test_the_16_bit_types_cost_the_same(architecture: str) -> None:
    """So tile shapes are chosen for one of them; row_statistics, which has no choice, may differ by a register."""
    rows = [row for row in SPREAD[architecture, "bfloat16", 64] if row["kernel"] != "row_statistics"]
    for row in rows:
        assert_same(with_figures(variant_of(row) | {"dtype": "float16"}), row | {"dtype": "float16"})


@pytest.mark.slow
@pytest.mark.parametrize("sibling", sorted(set(TABLE_OF) - set(ARCHITECTURES)))
def test_gpus_that_share_a_table_cost_the_same(sibling: str) -> None:
    if INSTALLED == "3.6" and sibling in ("sm_103", "sm_121"):
        pytest.skip("the nvdisasm that comes with Triton 3.6 (CUDA 12.8) cannot decode them")
    table = TABLE_OF[sibling]
    for row in SPREAD[table, "bfloat16", 64]:
        assert_same(with_figures(variant_of(row) | {"architecture": sibling}), row | {"architecture": sibling})


def spread() -> list[Any]:
    """Return the keys of what is compiled anew; one architecture's in `make test`, the others' are slow tests."""
    return [key if key[0] == "sm_80" else pytest.param(key, marks=pytest.mark.slow) for key in SPREAD]


@pytest.mark.parametrize("key", spread(), ids=lambda key: "-".join(map(str, key)))
def test_compiling_gives_the_kept_figures(key: tuple[str, str, int]) -> None:
    if triton.__version__ != COMPILED["triton"]:
        pytest.skip(f"there are no figures of triton {triton.__version__}, only of {COMPILED['triton']}")
    for row in SPREAD[key]:
        assert_same(with_figures(variant_of(row)), row)


def test_the_spread_covers_every_architecture_and_kernel() -> None:
    assert {key[0] for key in SPREAD} == set(ARCHITECTURES)
    assert {key[1:] for key in SPREAD} == {("bfloat16", 64), ("bfloat16", 80), ("float32", 64), ("float16", 64)}
    assert {row["kernel"] for row in SPREAD["sm_90", "bfloat16", 64]} == set(compiling.FUNCTIONS)


# -- the file ----------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    resources.write_figures(ROWS, path)
    figures = resources.read_figures(path)
    assert figures["rows"] == ROWS
    assert figures["triton"] == triton.__version__
    assert figures["digest"] == resources.figures_digest()
    assert sum('"kernel"' in line for line in path.read_text().splitlines()) == len(ROWS)


OF_THE_WRITER = tuple(f'  "{key}"' for key in ("date", "triton", "digest"))  # another version of Triton, other tiles


def test_the_shipped_file_is_as_this_code_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    resources.write_figures(ROWS, path)
    shipped, written = (
        [line for line in file.read_text().splitlines() if not line.startswith(OF_THE_WRITER)]
        for file in (resources.FIGURES, path)
    )
    assert shipped == written


@pytest.mark.parametrize("series", SERIES)
def test_figures_of_other_kernels_or_tiles_are_refused(series: str, tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    figures = resources.read_figures(resources.figures_path(series))
    path.write_text(json.dumps({**figures, "digest": "0123456789abcdef"}))
    with pytest.raises(
        ValueError, match=r"today's kernels and tile shapes, digest .*, got 0123456789abcdef: `python -m"
    ):
        resources.read_figures(path)


@pytest.mark.parametrize("series", SERIES)
def test_the_digest_follows_tiles_and_code(series: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = resources.figures_digest(series)
    assert before == resources.read_figures(resources.figures_path(series))["digest"]

    source = inspect.getsource
    with monkeypatch.context() as patch:  # a comment and a docstring are no code
        patch.setattr(inspect, "getsource", lambda part: source(part).replace('"""', '"""Words. ', 1) + "# more\n")
        assert resources.figures_digest(series) == before
    with monkeypatch.context() as patch:
        patch.setattr(inspect, "getsource", lambda part: source(part).replace("scale", "factor"))
        assert resources.figures_digest(series) != before

    shipped = resources.shipped_variants
    with monkeypatch.context() as patch:
        patch.setattr(resources, "shipped_variants", lambda *about: [v | {"warps": 4} for v in shipped(*about)])
        assert resources.figures_digest(series) != before


# -- compiling ---------------------------------------------------------------------------------------------------------


def test_a_spill_and_a_serialized_kernel_are_seen() -> None:
    options: Row = {"kernel": "forward", "architecture": "sm_90", "dtype": "bfloat16", "descriptors": True}
    assert compile_variant(**options, head_dim=128, tile=Tile(128, 128, 4, 2)).spill_bytes > 0
    assert compile_variant(**options, head_dim=64, tile=Tile(128, 128, 4, 3)).serialized


def test_a_kernel_that_tensor_memory_does_not_hold_is_refused() -> None:
    """Triton compiles it without a word, to a kernel of four registers that traps."""
    with pytest.raises(
        RuntimeError, match=r"backward_queries at head dim 80, 128×256.* must fit 512 columns .*, got \d+"
    ):
        compile_variant(
            kernel="backward_queries", architecture="sm_100", head_dim=80, dtype="bfloat16",
            tile=Tile(128, 256, 8, 2), descriptors=True,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "registers", "warps", "shared_bytes", "columns", "programs"),
    [
        ("sm_90", 128, 8, 1000, 0, 2),  # 8 · 32 · 128 registers are half of them
        ("sm_90", 129, 8, 1000, 0, 1),  # a warp takes 256 at a time
        ("sm_90", 32, 4, 100_000, 0, 2),
        ("sm_80", 32, 4, 100_000, 0, 1),
        ("sm_90", 16, 4, 1000, 0, 16),  # 64 warps
        ("sm_89", 16, 4, 1000, 0, 12),  # 48 warps
        ("sm_100", 32, 4, 1000, 256, 2),
        ("sm_100", 32, 4, 1000, 257, 1),  # taken as 512
        ("sm_100", 32, 4, 1000, 1, 16),  # taken as 32
    ],
)
def test_programs_at_a_time(
    architecture: str, registers: int, warps: int, shared_bytes: int, columns: int, programs: int
) -> None:
    assert compiling.programs_at_a_time(architecture, registers, warps, shared_bytes, columns) == programs


def test_causality_is_no_variant_of_its_own() -> None:
    """Half the compile time, and half the code to trust: one kernel serves both."""
    forward = [row for row in ROWS if (row["kernel"], row["dtype"]) == ("forward", "bfloat16")]
    assert len(forward) == len({(row["architecture"], row["head_dim"], row["tile"]) for row in forward})
    assert {row["causal"] for row in ROWS} <= {"yes", "no", "both"}


@pytest.mark.slow
def test_the_table_is_made_in_other_processes() -> None:
    rows = resources.table(architectures=("sm_90",), head_dims=(64,), dtypes=("bfloat16",), processes=1)
    assert [row["kernel"] for row in rows] == [row["kernel"] for row in SPREAD["sm_90", "bfloat16", 64]]
    assert all(row["registers"] > 0 for row in rows)
