"""Being called when a parameter's gradient is complete."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.nn import Parameter


def when_accumulated(parameter: Parameter, method: Callable[..., None], *arguments: Any) -> None:
    """Call a bound method each time after autograd has added to a parameter's `.grad`, as long as its object lives.

    The object is not kept alive. A tensor's hooks are held by C++, where Python's garbage collector does not look: a
    wrapper whose parameters' hooks refer to it would never be freed, nor would its buckets and its module.

    Args:
        parameter: a leaf that requires a gradient.
        method: what to call.
        *arguments: what to call it with.
    """
    weak = weakref.WeakMethod(method)

    def hook(_: Tensor) -> None:
        alive = weak()
        if alive is not None:
            alive(*arguments)

    parameter.register_post_accumulate_grad_hook(hook)
