from dataclasses import dataclass
from typing import Literal

import pytest

from stepbench.cli import measure


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
        ("size=nano,context=64", Cell("nano", 64)),
        ("size=nano,context~64,replicate=3", Cell("nano", 64, replicate=3)),
        ("size~nano,context~64,bucket_mib~none", Cell("nano", 64)),
        ("size~nano,context~64,bucket_mib~10", Cell("nano", 64, bucket_mib=10)),
    ],
)
def test_axes_may_be_in_any_order_and_defaults_left_out(text: str, cell: Cell) -> None:
    assert measure.complete(Cell, text) == cell


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size~nano", r"`context` must be given \(a whole number from 1 without leading zeros\), got 'size~nano'"),
        ("size~nano,context~64,size~nano", "`size` must be given once, got it twice in 'size~nano,"),
        (
            "size~nano,contexts~64",
            r"`contexts` is not an axis of this experiment \(did you mean context\?\); valid are size, context",
        ),
        ("", "`` is not an axis of this experiment; valid are size"),
        ("size~nano,context~64,", "`` is not an axis of this experiment; valid are size"),
        (
            "size:nano,context=64",
            r"`size:nano` is not an axis of this experiment( \(did you mean size\?\))?; valid are size",
        ),
        ("size=nano,context", "`context` must be a whole number from 1 without leading zeros, got ''"),
        ("size=na=no,context=64", "`size` must be a word"),
        ("size~nano,context~064", "`context` must be a whole number from 1 without leading zeros, got '064'"),
        ("size~nano,context~0", "`context` must be a whole number from 1 without leading zeros, got '0'"),
        ("size~nano,context~64,precision~fp8", "`precision` must be one of fp32, bf16, got 'fp8'"),
        ("size~../x,context~64", "`size` must be a word"),
    ],
)
def test_a_cell_that_cannot_be_understood_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure.complete(Cell, text)
