"""The names of all implementations of head and loss, and where each is defined.

The standard library alone: config.yaml and target paths are checked against these names without importing torch. A new
implementation is one file that defines a `Head`, and one line here.
"""

from typing import TYPE_CHECKING, Literal

HEADS: dict[str, str] = {
    "whole": "stepbench.kernels.heads.whole:HEAD",
    "chunked": "stepbench.kernels.heads.chunked:HEAD",
    "triton": "stepbench.kernels.heads.triton:HEAD",
    "torch": "stepbench.kernels.heads.torch_own:HEAD",
}

# The type of an experiment's axis; a type checker cannot look into a dictionary.
if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(HEADS)]


def modules(*names: str) -> tuple[str, ...]:
    """Return the modules that implement these names, such as `stepbench.kernels.heads.chunked`."""
    return tuple(dict.fromkeys(HEADS[name].partition(":")[0] for name in names))
