"""Kinds of failures; what becomes of each exception in a measurement stands in test_attempt.py."""

import subprocess
import sys

import pytest

from stepbench.measure.measurement import PredictedOutOfMemoryError, UnsupportedError, WrongResultError
from stepbench.own_code import OwnCodeError, guarded
from stepbench.parallel.outcome import ERROR, RankError, RankOutcome, RankTimeoutError
from stepbench.pipeline import records
from stepbench.process import failures


@pytest.mark.parametrize("kind", failures.KINDS)
def test_every_kind_has_a_sentence_and_a_status_that_a_record_may_have(kind: str) -> None:
    assert failures.KINDS[kind].endswith(".")
    fields = failures.failure(kind, "why", traceback="line")
    assert fields.pop("status") in records.STATUSES
    assert fields == {"kind": kind, "reason": "why", "traceback": "line"}


@pytest.mark.parametrize(
    "error", [UnsupportedError, PredictedOutOfMemoryError, WrongResultError, RankError, RankTimeoutError]
)
def test_an_exception_of_ours_is_of_a_kind_that_there_is(error: type[Exception]) -> None:
    assert failures.kind_of(error("why")) in failures.KINDS
    assert failures.sentence(error("\n why \n at length")) == "why"


def test_the_kind_of_others_is_not_taken_from_them() -> None:
    class ForeignError(Exception):
        kind = "of cheese"

    assert failures.kind_of(ForeignError("no")) == "exception"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no\nat length"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (UnsupportedError(), "UnsupportedError"),
        (TimeoutError("too late"), "too late"),
    ],
)
def test_an_exception_is_one_line(error: Exception, text: str) -> None:
    assert failures.sentence(error) == text


def test_memory_that_ran_out_in_code_of_the_users_own_is_no_mistake_of_it() -> None:
    for cause, kind in ((MemoryError(), "oom"), (KeyError("x"), "own_code")):
        with pytest.raises(OwnCodeError) as caught, guarded("mine.py:build"):
            raise cause
        assert failures.kind_of(caught.value) == kind


def test_the_rank_to_blame_is_known() -> None:
    blamed = RankOutcome(1, ERROR, reason="was killed by SIGKILL")
    assert failures.rank_of(RankError("rank 1 was killed by SIGKILL", blamed=blamed)) == 1
    assert failures.rank_of(RankError("the launchers did not meet")) is None
    assert failures.rank_of(ValueError("no")) is None


def test_torch_is_not_imported_to_find_a_kind() -> None:
    """A rank asks before it has torch, and perhaps because it cannot have it."""
    code = (
        "import sys; from stepbench.process import failures; "
        "print(failures.kind_of(MemoryError()), failures.kind_of(ImportError('torch')), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "oom exception False\n"


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "Triton Error [CUDA]: out of memory",
        "NCCL error in: ProcessGroupNCCL.cpp:3690, unhandled cuda error\nCuda failure 2 'out of memory'",
        "NCCL Error 1: unhandled cuda error\nLast error:\nFailed to CUDA calloc async 4 bytes",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "CUDA driver error: out of memory",
        "HIP out of memory. Tried to allocate 2.00 GiB",
        "MPS backend out of memory (MPS allocated: 18.00 GB)",
        "backend='inductor' raised:\nOutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "[enforce fail at alloc_cpu.cpp:124] . DefaultCPUAllocator: can't allocate memory: you tried to allocate",
    ],
)
def test_memory_that_ran_out_is_known_by_all_its_names(text: str) -> None:
    assert failures.kind_of(RuntimeError(text)) == "oom"
    wrapped = RuntimeError("a compiled step failed")
    wrapped.__cause__ = RuntimeError(text)
    assert failures.kind_of(wrapped) == "oom"


@pytest.mark.parametrize(
    "text", ["out of resource: shared memory, Required: 262144", "CUDA error: an illegal memory access was encountered"]
)
def test_what_is_no_lack_of_memory_is_an_error(text: str) -> None:
    assert failures.kind_of(RuntimeError(text)) == "exception"
