"""Data that cells read is checked and prepared."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.pipeline.test_bench import Open, open_bench

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
