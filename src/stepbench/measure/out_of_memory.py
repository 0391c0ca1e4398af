"""Whether an exception says that memory ran out, which it does by many names."""

from __future__ import annotations

import errno
import re
import sys

# torch's CPU allocator; cuBLAS, which cannot begin, cuDNN and cuSOLVER; torch.AcceleratorError and the driver; Triton's
# launcher; NCCL; ROCm, XPU and MPS; what Inductor makes of one of these. Not Triton's "out of resource", which is about
# shared memory.
NAMES = re.compile(
    r"[Cc]an(?:'t|not) allocate memory|_ALLOC_FAILED|DEVICE_ALLOCATION_FAILED|OutOfMemoryError"
    r"|CUBLAS_STATUS_NOT_INITIALIZED when calling `cublas(?:Lt)?Create"
    r"|(?:CUDA error|CUDA driver error|HIP error|Triton Error \[CUDA\]|Triton Error \[HIP\]): out of memory"
    r"|(?:CUDA|HIP|XPU|MPS backend) out of memory|Cuda failure \d* ?'out of memory'|Failed to CUDA (?:host)?[cm]alloc"
    r"|cudaErrorMemoryAllocation|hipErrorOutOfMemory|UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY"
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception, or what it wraps, says that memory of a device or of the host ran out."""
    torch = sys.modules.get("torch")  # what nobody has imported has raised nothing
    of_torch = torch is not None and isinstance(error, torch.OutOfMemoryError)
    # The CPU allocator and the libraries of a GPU raise others; their text is all there is to tell them by.
    told = isinstance(error, RuntimeError) and NAMES.search(str(error)) is not None
    mapping = isinstance(error, OSError) and error.errno == errno.ENOMEM
    cause = error.__cause__ or getattr(error, "inner_exception", None)  # what torch.compile wraps
    wrapped = isinstance(cause, Exception) and cause is not error and is_out_of_memory(cause)
    return of_torch or told or mapping or wrapped or isinstance(error, MemoryError)
