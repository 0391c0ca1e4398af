import json
import re
from pathlib import Path

import pytest

from stepbench.cli import fits
from stepbench.cli import main as command_line

ROOT = Path(__file__).parents[2]
CARDS = {"H100 (80 GB)": 79 * 2**30}


def run(*words: str) -> int:
    sizes = "sizes={tiny: {d_model: 64, d_ff: 256, layers: 3, heads: 2}}"
    more = ["--config", sizes, "--config", "vocabulary=100", "--config", "device=cpu"]
    return command_line.main(["--root", str(ROOT), "fits", "--size", "tiny", "--context", "512", *words, *more])


def test_a_step_that_does_not_fit_is_told_what_would_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--memory", "30MiB", "--batch", "2") == 1
    text = capsys.readouterr().out
    assert re.search(r"a training step needs [0-9.]+ MiB \(predicted on cpu\) and does not fit into 30MiB", text)
    assert "checkpointing of every block" in text
    assert "bf16 autocast" in text
    assert "yes" in text


def test_one_that_fits_is_told_its_edges(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--memory", "H100 (80 GB)") == 0
    assert re.search(r"At context 512 the largest batch that fits is [0-9]+; at batch 4", capsys.readouterr().out)
    assert run("--memory", "H100 (80 GB)", "--json") == 0
    (table,) = json.loads(capsys.readouterr().out)
    assert table["rows"][0]["fits"] == "yes"
    assert table["rows"][0]["peak_bytes"] > 2**20


def test_ranks_share_all_that_does_not_depend_on_the_batch(capsys: pytest.CaptureFixture[str]) -> None:
    needed = []
    for ranks in ("1", "8"):
        assert run("--memory", "H100 (80 GB)", "--ranks", ranks, "--json") == 0
        (table,) = json.loads(capsys.readouterr().out)
        needed.append(table["rows"][0]["peak_bytes"])
    assert needed[1] < needed[0]
    assert run("--memory", "H100 (80 GB)", "--ranks", "8") == 0
    assert re.search(r"ranks 8: a training step needs [0-9.]+ MiB on each rank \(predicted", capsys.readouterr().out)


def test_ranks_are_a_number_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run("--memory", "1GiB", "--ranks", "65537")
    assert "must be a whole number from 1 to 65536, got '65537'" in capsys.readouterr().err


@pytest.mark.parametrize("memory", ["24", "0GiB", "much", "H100 (80GB)"])
def test_an_amount_that_is_none_is_refused(memory: str) -> None:
    with pytest.raises(ValueError, match="`--memory` must be an amount above 0 with a unit"):
        fits.amount(memory, CARDS)


def test_amounts_have_units() -> None:
    assert [fits.amount(text, CARDS) for text in ("1.5GiB", "24 GB", "H100 (80 GB)")] == [
        3 * 2**29,
        24 * 10**9,
        79 * 2**30,
    ]


def test_a_context_that_the_model_does_not_have_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for more in ([], ["--memory", "24GiB"]):
        asked = ["--root", str(ROOT), "fits", "--size", "gpt2-xl", "--context", "2048", *more]
        assert command_line.main(asked) == 2
        assert "this model has 1024 learned positions, got a context of 2048" in capsys.readouterr().err


def test_a_model_that_cannot_be_predicted_is_refused_in_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    models = "models={mine: {module: 'tests/workloads/my_models.py:needs_values'}}"
    words = ["--root", str(ROOT), "fits", "--size", "mine", "--context", "64", "--config", models]
    assert command_line.main([*words, "--config", "device=cpu", "--config", "vocabulary=97"]) == 2
    told = capsys.readouterr().err
    assert "needs_values` cannot be predicted: " in told
    assert "Traceback" not in told
