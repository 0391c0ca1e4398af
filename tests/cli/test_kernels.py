import functools
import gzip
import importlib.util
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stepbench.cli.main import main
from stepbench.cli.output import USAGE_EXIT_CODE


def test_the_kept_figures_are_printed_as_they_are(resources: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels"]) == 0
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
    assert main(["kernels", *words]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "sm_" in line]
    wanted = [
        row
        for row in resources.read_figures()["rows"]
        if (row["architecture"] in ("sm_80", "sm_90"), row["head_dim"], row["dtype"]) == (True, 64, "bfloat16")
    ]
    assert len(lines) == len(wanted) >= 10
    assert all("bfloat16" in line and "sm_100" not in line for line in lines)


def test_what_limits_the_kernels_is_printed(resources: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["kernels", "--limits", "--head-dim", "64"]) == 0
    lines = [line.strip("│") for line in capsys.readouterr().out.splitlines() if "×" in line]
    rows = [row for row in resources.read_figures()["rows"] if "limits" in row and row["head_dim"] == 64]
    assert len(lines) == len(rows) == 6
    for row, line in zip(rows, lines, strict=True):
        cells = [cell.strip() for cell in line.split("│")]
        assert cells[:4] == [row["kernel"], "64", row["tile"], str(row["programs"])]
        assert cells[4] == f"{row['limits']['busy']['tensor']:.0%}"
        rate = row["limits"]["tflops"]["2048"]
        assert cells[13] == f"{rate * 0.85:.0f} to {rate * 1.15:.0f}"
        assert cells[-1] == "–"  # no GPU has tuned it yet


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--architecture", "sm_70"],
            "stepbench: `--architecture` must be one of sm_100, sm_120, sm_75, sm_80, sm_89, sm_90, got sm_70\n",
        ),
        (
            ["--head-dim", "64", "65"],
            "stepbench: `--head-dim` must be one of 32, 48, 64, 80, 96, 128, 160, 192, 256, got 65\n",
        ),
        (["--dtype", "int8"], "stepbench: `--dtype` must be one of bfloat16, float16, float32, got int8\n"),
        (
            ["--compile", "--architecture", "x"],
            "must be one of sm_100, sm_103, sm_120, sm_121, sm_75, sm_80, sm_86, sm_89, sm_90, got x\n",
        ),
        (
            ["--limits", "--architecture", "sm_80"],
            "stepbench: `--limits` knows the kernels for 16 bits on sm_90, and the filters leave none of them\n",
        ),
        (
            ["--head-dim", "80", "--dtype", "float32"],
            "stepbench: no shipped kernel matches all filters (head_dim 80; dtype float32)\n",
        ),
    ],
)
def test_a_kernel_that_is_not_shipped(
    resources: Any, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kernels", *words]) == USAGE_EXIT_CODE
    assert message in capsys.readouterr().err


def test_stale_figures_are_not_printed(
    resources: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resources, "figures_digest", lambda series: "0123456789abcdef")
    assert main(["kernels"]) == USAGE_EXIT_CODE
    shown = capsys.readouterr()
    assert "figures.json must be of today's kernels and tile shapes, digest 0123456789abcdef, got" in shown.err
    assert shown.out == ""


@pytest.mark.parametrize(
    ("words", "kept"), [([], True), (["--architecture", "sm_89"], False), (["--dtype", "float32"], False)]
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
    assert main(["kernels", "--compile", *words]) == 0
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
    assert main([command]) == USAGE_EXIT_CODE
    assert (
        capsys.readouterr().err == "stepbench: the package `triton` is not installed, and the Triton kernels need it\n"
    )


def test_the_kernel_of_head_and_loss_has_a_table_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("triton")
    from stepbench.kernels.triton import loss_figures

    assert main(["kernels", "--head"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if "cross_entropy" in line]
    assert len(lines) == len(loss_figures.read_figures()["rows"])
    assert main(["kernels", "--head", "--limits"]) == USAGE_EXIT_CODE


# -- times of a GPU ----------------------------------------------------------------------------------------------------


def test_without_a_gpu_nothing_is_timed(
    resources: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["kernels", "--measure", "times.jsonl"]) == USAGE_EXIT_CODE
    assert capsys.readouterr().err == "stepbench: `--measure` needs a CUDA device, and there is none\n"
    assert not Path("times.jsonl").exists()


def test_times_are_written_and_shown_as_soon_as_they_are_known(
    resources: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stepbench.workloads import kernel_timings

    problem = {"head_dim": 64, "dtype": "bfloat16", "causal": True, "context": 2048, "tokens": 16_384, "width": 2048}
    lines = [
        {"implementation": "sdpa_flash", "pass": "forward", **problem, "seconds": 1e-3, "predicted_s": None},
        {"kernel": "forward", "tile": [128, 64, 8, 3], **problem, "failed": "RuntimeError: no"},
    ]

    def measure(asked: list[Any], *, keep: Any, deadline: float) -> int:
        assert [each.context for each in asked] == [2048, 2048, 16_384, 16_384]
        assert 0 < deadline - time.monotonic() < 7
        for number, line in enumerate(lines):
            keep(line)
            assert len(Path("times.jsonl").read_text().splitlines()) == number + 2
        return 3

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(kernel_timings, "describe", lambda: {"device": "a test"})
    monkeypatch.setattr(kernel_timings, "measure", measure)
    assert main(["kernels", "--measure", "times.jsonl", "--seconds", "7"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [kernel_timings.sentence(line) for line in lines]
    assert shown.err == "3 timings left when the time was up\n"
    written = [json.loads(line) for line in Path("times.jsonl").read_text().splitlines()]
    assert written == [{"device": "a test"}, *lines]


class Pool:
    """Stands in for a pool of processes, in which nothing could be replaced."""

    map = staticmethod(map)

    def __init__(self, **_: Any) -> None: ...

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None: ...


@pytest.fixture
def measured_bundle(resources: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a bundle with two times, and let fits be about constants that are known."""
    import triton

    from stepbench.cli import kernels as command
    from stepbench.kernels.triton import measured
    from stepbench.kernels.triton.limits import refit

    on = {"architecture": "sm_90", "multiprocessors": 132, "triton": triton.__version__}
    time_ = {
        "kernel": "forward", "tile": [128, 64, 8, 3], "descriptors": True, "head_dim": 64, "dtype": "bfloat16",
        "causal": True, "context": 2048, "tokens": 16_384, "width": 2048, "seconds": 1e-3, "predicted_s": 9e-4,
    }  # fmt: skip
    content = {"version": 1, "machine": "nvidia-h200-1x", "records": {}}
    content["kernels"] = {"on": on, "timed": [time_, time_ | {"context": 16_384}]}
    file = tmp_path / "bench.json.gz"
    file.write_bytes(gzip.compress(json.dumps(content).encode()))
    monkeypatch.setattr(command, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(measured, "_compiled", lambda variant: (2, ()))
    monkeypatch.setattr(refit, "write", functools.partial(refit.write, path=tmp_path / "fitted.json"))
    return file


def fit_of(after: float, asked: list[Any]) -> Any:
    from stepbench.kernels.triton.limits import refit
    from stepbench.kernels.triton.limits.machine import Machine

    def fit(kernels: list[Any], **_: Any) -> refit.Fit:
        asked.extend(kernels)
        new = replace(Machine(), copy=1500.0, clock_hz=1.7e9)
        return refit.Fit(Machine(), new, refit.Error.of([1.1, 0.9]), refit.Error.of([1 + after, 1 - after]))

    return fit


def test_a_refit_shows_old_and_new_constants_and_errors_and_keeps_what_is_better(
    measured_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stepbench.kernels.triton.limits import refit

    asked: list[Any] = []
    monkeypatch.setattr(refit, "refit", fit_of(0.03, asked))
    assert main(["kernels", "--refit", str(measured_bundle)]) == 0
    shown = capsys.readouterr()
    (kernel,) = asked
    assert [launch.context for launch in kernel.launches] == [2048, 16_384]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.out.splitlines() if "│" in line]
    assert ["clock_hz", "1.655e+09", "1.7e+09", ""] in rows
    assert ["copy", "700", "1500", "at its bound"] in rows
    assert len(rows) == len(refit.BOUNDS)
    assert shown.err.splitlines()[:2] == [
        "error of 2 times of 1 kernels before: mean +0.0%, standard deviation 10.0%, worst +10.0%",
        "after: mean +0.0%, standard deviation 3.0%, worst +3.0%",
    ]
    assert "fitted.json is rewritten; run `stepbench kernels --compile` next" in shown.err
    kept = json.loads(measured_bundle.with_name("fitted.json").read_text())
    assert kept["constants"]["copy"] == 1500
    assert kept["origin"].startswith("2 times of 1 kernels on nvidia-h200-1x")


def test_a_refit_that_is_no_better_keeps_the_old_constants(
    measured_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stepbench.kernels.triton.limits import refit

    monkeypatch.setattr(refit, "refit", fit_of(0.1, []))
    assert main(["kernels", "--refit", str(measured_bundle), "--json"]) == 0
    shown = capsys.readouterr()
    assert [row["constant"] for row in json.loads(shown.out)] == list(refit.BOUNDS)
    assert "no other constants describe these times better: fitted.json stays as it is" in shown.err
    assert not measured_bundle.with_name("fitted.json").exists()


def test_a_refit_of_what_is_no_bundle_is_refused_in_one_sentence(
    measured_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["kernels", "--refit", "nowhere.json.gz"]) == USAGE_EXIT_CODE
    assert capsys.readouterr().err == "stepbench: nowhere.json.gz: cannot be read (No such file or directory)\n"
    assert main(["kernels", "--refit", str(measured_bundle)]) == USAGE_EXIT_CODE
    assert "`kernels` must be at least 3 with 8 times for 6 constants, got 1 with 2" in capsys.readouterr().err
