"""Which parameters share a bucket, and where tensors stand in a flat buffer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Parameter

from stepbench.parallel.bucket import Layout, assign

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


DTYPES = [torch.float32, torch.bfloat16]
PARAMETERS = st.lists(st.tuples(st.integers(0, 50), st.sampled_from(DTYPES)), max_size=30)


@given(sizes=PARAMETERS, bucket_bytes=st.floats(0.1, 500))
def test_every_parameter_has_one_bucket_of_its_dtype(sizes: list[tuple[int, torch.dtype]], bucket_bytes: float) -> None:
    parameters = [Parameter(torch.empty(size, dtype=dtype)) for size, dtype in sizes]
    buckets = assign(parameters, bucket_bytes=bucket_bytes)
    assert sorted(map(id, parameters)) == sorted(id(each) for bucket in buckets for each in bucket)
    place = {id(parameter): number for number, parameter in enumerate(parameters)}
    for bucket in buckets:
        assert len({each.dtype for each in bucket}) == 1
        assert sorted(place[id(each)] for each in bucket) == [place[id(each)] for each in bucket]
    # All but the last of each dtype are full, and none was full before its last parameter came.
    for dtype in DTYPES:
        same = [bucket for bucket in buckets if bucket[0].dtype == dtype]
        for number, bucket in enumerate(same):
            if number < len(same) - 1:
                assert sum(each.nbytes for each in bucket) >= bucket_bytes
            assert sum(each.nbytes for each in bucket[:-1]) < bucket_bytes
    # The order in which they become complete.
    ends = [place[id(bucket[-1])] for bucket in buckets]
    assert ends == sorted(ends)


@pytest.mark.parametrize(("bucket_bytes", "sizes"), [(1, [1, 1, 1, 1]), (8, [2, 2]), (9, [3, 1]), (1000, [4])])
def test_buckets_are_closed_when_they_are_full(bucket_bytes: float, sizes: list[int]) -> None:
    parameters = [Parameter(torch.empty(1)) for _ in range(4)]
    assert [len(bucket) for bucket in assign(parameters, bucket_bytes=bucket_bytes)] == sizes
