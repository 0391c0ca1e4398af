"""Data that cells read is checked and prepared."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.pipeline.test_bench import Open, open_bench

from stepbench.experiments.warmup.cell import Cell as Warmup
from stepbench.pipeline import inputs
from stepbench.pipeline.config import ConfigError

__all__ = ["open_bench"]  # the fixture


@pytest.mark.parametrize(
    ("ids", "message"),
    [(None, "mine"), (np.full(500, 300, dtype=np.uint16), "mine"), (np.zeros(500), "mine")],
)
def test_data_that_cannot_feed_the_cells_is_refused_and_kept(
    open_bench: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ids: Any, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    found = open_bench(data={"source": "mine.npy", "corpus_bytes": 20000})
    if ids is not None:
        np.save(tmp_path / "mine.npy", ids)
    with pytest.raises(ConfigError, match=message):
        inputs.check(found)
    if ids is None:
        with pytest.raises(ConfigError, match=r"`data\.source` must be a file that exists, got 'mine.npy'"):
            inputs.check_exist(found)
    else:
        with pytest.raises(ValueError, match=message):
            inputs.prepare_tokens(found)
        assert (tmp_path / "mine.npy").exists()  # it is the user's own


TEXT = {"source": "mine.txt", "corpus_bytes": 20000}


def decoded(path: Path) -> str:
    from tokenizers import Tokenizer

    ids = np.load(path)[:12].tolist()
    return str(Tokenizer.from_file(str(path.with_suffix(".tokenizer.json"))).decode(ids))


def test_tokens_are_made_again_where_their_text_has_changed(
    open_bench: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the file times say: a copy that keeps them is another text all the same."""
    monkeypatch.chdir(tmp_path)
    text, cell = tmp_path / "mine.txt", Warmup("nano", 1)
    text.write_text("alpha beta gamma delta. " * 2000)
    found = open_bench(data=TEXT)
    inputs.make(found, cell)
    path = tmp_path / found.token_path
    assert decoded(path).startswith("alpha beta")
    first = path.stat().st_mtime_ns
    inputs.make(found, cell)
    assert path.stat().st_mtime_ns == first
    kept = text.stat().st_mtime_ns
    text.write_text("omega psi chi phi! " * 2100)
    os.utime(text, ns=(kept, kept))
    inputs.make(found, cell)
    assert decoded(path).startswith("omega psi")
    path.unlink()
    inputs.make(found, cell)
    assert decoded(path).startswith("omega psi")


def test_a_text_lies_beside_the_configuration_wherever_one_stands(
    open_bench: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.txt").write_text("alpha beta gamma delta. " * 2000)
    np.save(tmp_path / "mine.npy", np.arange(500, dtype=np.uint16) % 300)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for source in ("mine.txt", "mine.npy"):
        names = []
        for place in (tmp_path, elsewhere):
            monkeypatch.chdir(place)
            found = open_bench(data={"source": source, "corpus_bytes": 20000})
            inputs.check(found)
            inputs.make(found, Warmup("nano", 1))
            inputs.prepare_tokens(found)
            assert (tmp_path / found.token_path).exists()
            names.append(found.token_path)
        assert names[0] == names[1]
    assert not any(elsewhere.iterdir())
