"""GPU architectures by compute capability, and the table of tile shapes that each uses; the standard library alone."""

from __future__ import annotations

# GPUs that Triton compiles for, and the table that they use: the data-center ones of a generation share one, and so do
# the consumer ones, which have less shared memory.
TABLE_OF = {
    "sm_75": "sm_75", "sm_80": "sm_80", "sm_86": "sm_89", "sm_89": "sm_89", "sm_90": "sm_90", "sm_100": "sm_100",
    "sm_103": "sm_100", "sm_120": "sm_120", "sm_121": "sm_120",
}  # fmt: skip

BF16_FROM = (8, 0)


def sixteen_bits(capability: tuple[int, int]) -> str:
    """Return torch's name of the 16-bit dtype that a device computes in: float16 before 8.0."""
    return "bfloat16" if capability >= BF16_FROM else "float16"


def architecture_of(capability: tuple[int, int]) -> str:
    """Return the architecture whose table a device uses.

    Consumer GPUs (8.6, 8.9, 12.x) have 99 KiB of shared memory per program where their data-center siblings have 163
    and 227, so they have tables of their own. A GPU that `TABLE_OF` does not have uses the smallest of its generation;
    one of a newer generation that of 12.x.

    Raises:
        ValueError: the GPU is older than 7.5.
    """
    if capability < (7, 5):
        raise ValueError(f"`capability` must be 7.5 or newer, got {capability[0]}.{capability[1]}")
    major, minor = capability
    of_generation = {7: "sm_75", 8: "sm_89", 9: "sm_90", 10: "sm_100", 11: "sm_100"}.get(major, "sm_120")
    return TABLE_OF.get(f"sm_{major}{minor}", of_generation)


def table_of(capability: str | None) -> str | None:
    """Return the table of a device by its capability in words, such as `9.0`; None where it has none."""
    try:
        return None if capability is None else architecture_of(pair(capability))
    except ValueError:
        return None


def pair(capability: str) -> tuple[int, int]:
    """Return a capability in words, such as `9.0`, as torch tells it.

    Raises:
        ValueError: it is none.
    """
    major, _, minor = capability.partition(".")
    return int(major), int(minor)
