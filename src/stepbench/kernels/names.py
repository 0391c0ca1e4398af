"""The names of all attention implementations, and where each is defined.

The standard library alone: config.yaml and target paths are checked against these names without importing torch. A new
implementation is one file that defines an `Implementation`, and one line here.
"""

from typing import TYPE_CHECKING, Annotated, Literal

IMPLEMENTATIONS: dict[str, str] = {
    "naive": "stepbench.kernels.naive:IMPLEMENTATION",
    "reference": "stepbench.kernels.reference:IMPLEMENTATION",
    "tiled": "stepbench.kernels.tiled:IMPLEMENTATION",
    "triton": "stepbench.kernels.triton:TWO_PASSES",
    "triton_atomics": "stepbench.kernels.triton:ATOMICS",
    "triton_reduced": "stepbench.kernels.triton:REDUCED",
    "triton_one_loop": "stepbench.kernels.triton:ONE_LOOP",
    "compiled": "stepbench.kernels.compiled:IMPLEMENTATION",
    "sdpa": "stepbench.kernels.sdpa:SDPA",
    "sdpa_math": "stepbench.kernels.sdpa:MATH",
    "sdpa_flash": "stepbench.kernels.sdpa:FLASH",
    "sdpa_cudnn": "stepbench.kernels.sdpa:CUDNN",
    "sdpa_efficient": "stepbench.kernels.sdpa:EFFICIENT",
    "flex": "stepbench.kernels.flex:IMPLEMENTATION",
}

# The section of config.yaml that names kernels of one's own.
SECTION = "attention"

# The type of an experiment's axis; a type checker cannot look into a dictionary.
if TYPE_CHECKING:
    Name = str
else:
    Name = Annotated[Literal[tuple(IMPLEMENTATIONS)], SECTION]


def modules(*names: str) -> tuple[str, ...]:
    """Return the modules that implement these names, such as `stepbench.kernels.sdpa`; one's own kernels have none."""
    known = (IMPLEMENTATIONS[name] for name in names if name in IMPLEMENTATIONS)
    return tuple(dict.fromkeys(where.partition(":")[0] for where in known))
