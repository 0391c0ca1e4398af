import math
import os
from typing import Any

import pytest

from stepbench.cli.main import main
from stepbench.cli.output import USAGE_EXIT_CODE


def test_without_a_gpu_tuning_is_refused_in_one_sentence(
    resources: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["tune"]) == USAGE_EXIT_CODE
    assert capsys.readouterr().err == "stepbench: tuning needs a CUDA device, and there is none\n"


@pytest.mark.parametrize(
    ("words", "capability", "problems"),
    [
        ([], (9, 0), [(64, "bfloat16"), (128, "bfloat16")]),
        (["--seconds", "9"], (7, 5), [(64, "float16"), (128, "float16")]),
        (["--head-dim", "80", "--dtype", "float16", "bfloat16"], (7, 5), [(80, "float16"), (80, "bfloat16")]),
    ],
)
def test_tuning_is_told_what_is_asked_and_tells_its_choices(
    resources: Any,
    words: list[str],
    capability: tuple[int, int],
    problems: list[tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def tune(asked: list[Any], *, deadline: float, report: Any) -> int:
        for each in asked:
            report(f"{each.head_dim} {each.dtype} {each.is_causal}: [8 warps]")
        return 0 if deadline == math.inf else 3

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda: capability)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    monkeypatch.setattr("stepbench.kernels.triton.tune.tune", tune)
    assert main(["tune", *words]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [f"{d} {t} {causal}: [8 warps]" for d, t in problems for causal in (True, False)]
    assert "run `stepbench kernels --compile` next" in shown.err
    assert ("the time was up in 3 of 8 searches" in shown.err) is ("--seconds" in words)
    assert os.environ["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # as in the processes that measure
