import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from stepbench.cli import commands as door


@dataclass(frozen=True)
class Cell:
    size: str
    context: int
    precision: Literal["fp32", "bf16"] = "fp32"
    bucket_mib: int | None = None
    replicate: int = 0


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("size~nano,context~64", Cell("nano", 64)),
        ("context~64,size~nano", Cell("nano", 64)),
        ("replicate~3,context~64,precision~bf16,size~2.7B", Cell("2.7B", 64, "bf16", replicate=3)),
        ("size~nano,context~64,bucket_mib~none", Cell("nano", 64)),
        ("size~nano,context~64,bucket_mib~10", Cell("nano", 64, bucket_mib=10)),
    ],
)
def test_axes_may_be_in_any_order_and_defaults_left_out(text: str, cell: Cell) -> None:
    assert door.complete(Cell, text) == cell


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size~nano", "`context` must be given, a whole number from 0 without leading zeros, got 'size~nano'"),
        ("size~nano,context~64,size~nano", "each once, got 'size', which is twice"),
        ("size~nano,contexts~64", "each once, got 'contexts', which is unknown"),
        ("", "each once, got '', which is unknown"),
        ("size~nano,context~64,", "each once, got '', which is unknown"),
        ("size=nano,context=64", "each once, got 'size=nano', which is unknown"),
        ("size~nano,context~064", "`context` must be a whole number from 0 without leading zeros, got '064'"),
        ("size~nano,context~64,precision~fp8", "`precision` must be one of fp32, bf16, got 'fp8'"),
        ("size~../x,context~64", "`size` must be a word"),
    ],
)
def test_a_cell_that_cannot_be_understood_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        door.complete(Cell, text)


@pytest.mark.parametrize("words", [[], ["measure"], ["cells", "--state", "good"], ["nonsense"]])
def test_a_command_that_is_none_shows_its_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        door.main(words)
    assert raised.value.code == door.USAGE_EXIT_CODE
    assert capsys.readouterr().err.startswith("usage: python -m stepbench")


# -- kernels and tune --------------------------------------------------------------------------------------------------


@pytest.fixture
def resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the module that compiles; run where no config.yaml is, for these commands need none."""
    pytest.importorskip("triton")
    monkeypatch.chdir(tmp_path)
    return importlib.import_module("stepbench.kernels.triton.resources")


def test_the_kept_figures_are_printed_as_they_are(resources: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert door.main(["kernels"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = resources.read_figures()["rows"]
    assert len([line for line in lines if "sm_" in line]) == len(rows)
    for row, line in zip(rows, (line for line in lines if "sm_" in line), strict=True):
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        told = ("kernel", "architecture", "head_dim", "dtype", "causal", "tile", "registers")
        assert cells[:7] == [str(row[key]) for key in told]
        assert cells[7] == f"{row['spill_bytes']} B"
        assert cells[9] == str(row["programs"])
        assert all(f"{count} {name}" in cells[10] for name, count in row["instructions"].items())


def test_kernels_are_filtered(resources: Any, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--architecture", "sm_80", "sm_90", "--head-dim", "64", "--dtype", "bfloat16"]
    assert door.main(["kernels", *words]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "sm_" in line]
    wanted = [
        row
        for row in resources.read_figures()["rows"]
        if (row["architecture"] in ("sm_80", "sm_90"), row["head_dim"], row["dtype"]) == (True, 64, "bfloat16")
    ]
    assert len(lines) == len(wanted) >= 10
    assert all("bfloat16" in line and "sm_100" not in line for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--architecture", "sm_70"], "stepbench: `--architecture` must be one of sm_100, sm_80, sm_90, got sm_70\n"),
        (["--head-dim", "64", "65"], "stepbench: `--head-dim` must be one of 32, 64, 80, 96, 128, 256, got 65\n"),
        (["--dtype", "int8"], "stepbench: `--dtype` must be one of bfloat16, float16, float32, got int8\n"),
        (["--compile", "--architecture", "x"], "must be one of sm_100, sm_80, sm_89, sm_90, got x\n"),
        (["--head-dim", "80", "--dtype", "float32"], "stepbench: the filters must leave a kernel, got none for {"),
    ],
)
def test_a_kernel_that_is_not_shipped(
    resources: Any, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert door.main(["kernels", *words]) == door.USAGE_EXIT_CODE
    assert message in capsys.readouterr().err


def test_stale_figures_are_not_printed(
    resources: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resources, "figures_digest", lambda: "0123456789abcdef")
    assert door.main(["kernels"]) == door.USAGE_EXIT_CODE
    shown = capsys.readouterr()
    assert "figures.json must be of today's kernels and tile shapes, digest 0123456789abcdef, got" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("words", "kept"), [([], True), (["--architecture", "sm_89"], False), (["--dtype", "float16"], False)]
)
def test_only_a_compilation_of_everything_is_kept(
    resources: Any, words: list[str], kept: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The compiler itself is tested in tests/kernels; here it says what it was asked for."""
    asked: list[tuple[Any, ...]] = []
    written: list[Any] = []
    costs = {
        "registers": 255, "spill_bytes": 8, "shared_bytes": 2048, "programs": 1, "instructions": {}, "serialized": True
    }  # fmt: skip

    def compile_(*about: Any) -> list[dict[str, Any]]:
        asked.append(about)
        return [next(resources.shipped_variants("sm_80")) | costs]

    monkeypatch.setattr(resources, "table", compile_)
    monkeypatch.setattr(resources, "write_figures", written.append)
    assert door.main(["kernels", "--compile", *words]) == 0
    options = dict(zip(words[::2], words[1::2], strict=True))
    architectures = [options["--architecture"]] if "--architecture" in options else resources.ARCHITECTURES
    dtypes = [options["--dtype"]] if "--dtype" in options else None
    assert asked == [(architectures, None, dtypes)]
    assert len(written) == kept
    row = next(line for line in capsys.readouterr().out.splitlines() if "sm_80" in line)
    assert "2.00 KiB" in row
    assert "│ 8 B │" in " ".join(row.split())
    assert "serialized" in row


@pytest.mark.parametrize("command", ["kernels", "tune"])
def test_without_triton_one_sentence(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert door.main([command]) == door.USAGE_EXIT_CODE
    assert capsys.readouterr().err == "stepbench: the Triton kernels need the triton package, got none\n"


def test_without_a_gpu_tuning_is_refused_in_one_sentence(
    resources: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert door.main(["tune"]) == door.USAGE_EXIT_CODE
    assert capsys.readouterr().err == "stepbench: tuning needs a CUDA device, got none\n"


@pytest.mark.parametrize(
    ("words", "problems"),
    [
        ([], [(64, "bfloat16"), (128, "bfloat16")]),
        (["--head-dim", "80", "--dtype", "float16", "bfloat16"], [(80, "float16"), (80, "bfloat16")]),
    ],
)
def test_tuning_is_told_what_is_asked_and_tells_its_choices(
    resources: Any,
    words: list[str],
    problems: list[tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def tune(asked: list[Any], report: Any) -> None:
        for each in asked:
            report(f"{each.head_dim} {each.dtype} {each.is_causal}: [8 warps]")

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("stepbench.kernels.triton.tune.tune", tune)
    assert door.main(["tune", *words]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [f"{d} {t} {causal}: [8 warps]" for d, t in problems for causal in (True, False)]
    assert "now run `python -m stepbench kernels --compile`" in shown.err
