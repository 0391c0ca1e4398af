"""The names of all strategies of training on several ranks, and where each is defined.

The standard library alone: config.yaml and target paths are checked against these names without importing torch. A new
strategy is one file that defines a `Strategy` (`stepbench.parallel.replica`), and one line here.
"""

from typing import TYPE_CHECKING, Literal

STRATEGIES: dict[str, str] = {
    "none": "stepbench.parallel.data_parallel:STRATEGY",
    "naive": "stepbench.parallel.naive:STRATEGY",
    "flat": "stepbench.parallel.flat:STRATEGY",
    "overlapped": "stepbench.parallel.overlapped:STRATEGY",
    "bucketed": "stepbench.parallel.bucketed:STRATEGY",
    "torch_ddp": "stepbench.parallel.torch_ddp:STRATEGY",
    "sharded_broadcast": "stepbench.parallel.sharded_broadcast:STRATEGY",
    "sharded_reduce_scatter": "stepbench.parallel.sharded_reduce_scatter:STRATEGY",
    "torch_zero": "stepbench.parallel.torch_zero:STRATEGY",
    "fsdp": "stepbench.parallel.fsdp:STRATEGY",
    "torch_fsdp2": "stepbench.parallel.torch_fsdp2:STRATEGY",
}

# The type of an experiment's axis; a type checker cannot look into a dictionary.
if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(STRATEGIES)]


def modules(*names: str) -> tuple[str, ...]:
    """Return the modules that implement these strategies, such as `stepbench.parallel.bucketed`."""
    return tuple(dict.fromkeys(STRATEGIES[name].partition(":")[0] for name in names))
