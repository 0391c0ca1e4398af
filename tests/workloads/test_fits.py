import dataclasses
from typing import Any

import numpy as np
import pytest

from stepbench.measure import envelope
from stepbench.measure.envelope import Envelope, Piece
from stepbench.measure.measurement import Setting, UnsupportedError
from stepbench.models.architecture import Architecture
from stepbench.models.sizes import ModelSize
from stepbench.workloads import fits, predicted, rank_step
from stepbench.workloads.spec import StepSpec

SETTING = Setting("cpu", {"seed": 0})
SMALL = {"d_model": 32, "d_ff": 128, "heads": 4}
GIB = 2**30


def predicted_bytes(spec: StepSpec, batch: int, context: int) -> int:
    whole = dataclasses.replace(spec, batch=batch, context=context)
    predict = rank_step.must_predict if spec.strategy else predicted.predict
    return predict(whole, SETTING).scalars()["peak_memory_bytes"]


@pytest.mark.parametrize(
    ("layers", "vocabulary", "more"),
    [
        (7, 50, {}),
        (6, 3000, {"optimizer": "adamw_loop"}),  # the peak is reached in the head
        # Autocast frees its cached weights in any order.
        (10, 50, {"precision": "bf16", "attention": "sdpa", "groups": (2,)}),
    ],
)
def test_shallow_steps_predict_the_deep_one_exactly(layers: int, vocabulary: int, more: dict[str, Any]) -> None:
    spec = StepSpec(ModelSize(layers=layers, **SMALL), vocabulary, context=1, batch=1, **more)
    assert max(fits.depths(spec, layers)) < layers
    found = fits.find(spec, SETTING)
    assert found.peak_bytes(7, 320) == predicted_bytes(spec, 7, 320)
    # With a batch of 1 torch makes a few small copies less.
    assert found.peak_bytes(1, 200) == pytest.approx(predicted_bytes(spec, 1, 200), rel=2e-3)


@pytest.mark.parametrize("more", [{"optimizer": "sgd"}, {"precision": "bf16", "attention": "sdpa", "groups": (1,)}])
def test_one_of_several_ranks_is_predicted_from_shallow_steps(more: dict[str, Any]) -> None:
    spec = StepSpec(ModelSize(layers=7, **SMALL), 50, context=1, batch=1, strategy="fsdp", ranks=8, **more)
    assert max(fits.depths(spec, 7)) < 7
    found = fits.find(spec, SETTING)
    alone = fits.find(dataclasses.replace(spec, strategy=None, ranks=1), SETTING)
    for batch, context in ((7, 320), (1, 200)):
        assert found.peak_bytes(batch, context) == pytest.approx(predicted_bytes(spec, batch, context), rel=2e-3)
        assert found.peak_bytes(batch, context) < alone.peak_bytes(batch, context)


def test_a_head_by_chunks_is_predicted_exactly_in_each_of_its_ranges() -> None:
    # The vocabulary makes the chunks the peak.
    spec = StepSpec(ModelSize(layers=7, **SMALL), 20_000, context=1, batch=1, attention="sdpa", head="chunked")
    found = fits.find(spec, SETTING)
    assert [piece.most_tokens for piece in found.pieces] == [512, 4096, 32768, None]
    for batch, context in ((2, 200), (3, 1024), (4, 2048), (8, 6144)):
        assert found.peak_bytes(batch, context) == predicted_bytes(spec, batch, context), (batch, context)
    # Chunks may be uneven, and the last one smaller.
    for batch, context in ((5, 300), (7, 1111), (9, 4444)):
        assert found.peak_bytes(batch, context) == pytest.approx(predicted_bytes(spec, batch, context), rel=1e-3)
    peaks = [found.peak_bytes(1, tokens) for tokens in (512, 513, 4096, 4097, 32768, 32769)]
    assert peaks == sorted(peaks)  # or no edge could be found by bisection


def test_a_gpt2_is_predicted_from_shallow_ones_too() -> None:
    size = Architecture(layers=7, architecture="gpt2", tied=True, vocabulary=50, **SMALL)
    spec = StepSpec(size, 50, context=1, batch=1)
    found = fits.find(spec, SETTING)
    assert found.peak_bytes(7, 320) == predicted_bytes(spec, 7, 320)
    assert found.largest_context(1, 2**50) == 1024  # it has no more positions


def test_the_largest_size_needs_what_its_own_step_was_predicted_to() -> None:
    spec = StepSpec(ModelSize(d_model=2560, d_ff=10240, layers=32, heads=32), 10_000, context=1, batch=1)
    found = fits.find(spec, SETTING)
    assert found.peak_bytes(1, 128) / GIB == pytest.approx(63.46, abs=0.01)
    assert found.peak_bytes(4, 2048) / GIB == pytest.approx(181, abs=0.5)


def test_an_attention_that_depends_on_the_context_is_refused() -> None:
    spec = StepSpec(ModelSize(layers=1, **SMALL), 50, context=1, batch=1, attention="tiled")
    with pytest.raises(UnsupportedError, match="attention tiled with head whole cannot"):
        fits.find(spec, SETTING)


def test_a_deeper_model_must_only_repeat_a_shallow_one() -> None:
    rows = np.array([[0.0], [5.0], [2.0], [4.0], [1.0]])
    again = np.array([[0.0], [6.0], [3.0], [5.0], [3.0], [5.0], [2.0]])  # its first change is larger, then one goes on
    assert envelope._aligned(again, rows).ravel().tolist() == [0, 6, 3, 5, 2]
    for other in (again[:3], np.array([[0.0], [5.0], [1.0], [9.0], [1.0], [4.0], [1.0]])):
        with pytest.raises(envelope.StructureError):
            envelope._aligned(other, rows)
    with pytest.raises(envelope.StructureError):
        envelope._aligned(rows, rows[:2])


def test_the_edges_are_the_last_that_fit() -> None:
    found = Envelope((Piece(None, ((1000.0, 0, 0, 0, 10.0, 1.0), (500.0, 0, 0, 0, 0, 3.0))),))
    for batch in (1, 3):
        largest = found.largest_context(batch, 100_000)
        assert found.peak_bytes(batch, largest) <= 100_000 < found.peak_bytes(batch, largest + 1)
    largest = found.largest_batch(16, 100_000)
    assert found.peak_bytes(largest, 16) <= 100_000 < found.peak_bytes(largest + 1, 16)
    assert found.largest_batch(16, 900) == 0
