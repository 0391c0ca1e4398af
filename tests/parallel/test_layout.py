"""Where tensors stand in a flat buffer."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from stepbench.parallel.layout import Layout

SHAPES = st.lists(st.lists(st.integers(0, 9), max_size=3), min_size=1, max_size=8)
DTYPES = st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.uint8])


@given(shapes=SHAPES, dtype=DTYPES, extra=st.integers(0, 20), slices=st.integers(1, 7))
def test_places_are_aligned_apart_and_inside(
    shapes: list[list[int]], dtype: torch.dtype, extra: int, slices: int
) -> None:
    tensors = [torch.zeros(shape, dtype=dtype) for shape in shapes]
    layout = Layout.of(tensors, extra=extra, slices=slices)
    buffer = torch.zeros(layout.length, dtype=dtype)
    for number, view in enumerate(layout.views(buffer)):
        assert view.shape == tensors[number].shape
        assert (view.storage_offset() * view.element_size()) % 64 == 0
        view.fill_(number + 1)
    for number, tensor in enumerate(tensors):
        assert (buffer == number + 1).sum() == tensor.numel()
    assert layout.used + extra <= layout.length
    assert not buffer[layout.used :].any()
    assert layout.length % slices == 0
    assert (layout.length // slices * buffer.element_size()) % 64 == 0


@given(shapes=SHAPES, slices=st.integers(1, 5))
def test_slices_cut_every_tensor_without_rest(shapes: list[list[int]], slices: int) -> None:
    tensors = [torch.zeros(shape) for shape in shapes]
    layout = Layout.of(tensors, slices=slices)
    length = layout.length // slices
    for index, tensor in enumerate(tensors):
        cuts = [layout.cut(index, number * length, (number + 1) * length) for number in range(slices)]
        elements = [element for start, stop in cuts for element in range(start, stop)]
        assert elements == list(range(tensor.numel()))


def test_dense_strides_are_kept_and_others_are_made_contiguous() -> None:
    last = torch.zeros(2, 3, 4, 5).to(memory_format=torch.channels_last)
    sparse = torch.zeros(6, 6)[::2, ::2]
    views = Layout.of([last, sparse]).views(torch.zeros(1000))
    assert views[0].stride() == last.stride()
    assert views[1].stride() == (3, 1)
