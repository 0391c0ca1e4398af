"""Which parameters share a bucket."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import Parameter

from stepbench.parallel.assignment import assign

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
