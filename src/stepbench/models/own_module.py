"""Modules that are not built in, as decoders: tokens in, logits or a loss out."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stepbench import own_code, versions
from stepbench.models import hugging_face
from stepbench.models.decoder import next_token_loss
from stepbench.models.layers import Attention
from stepbench.models.own import OwnModel
from stepbench.own_code import OwnCodeError

SHARDED = ("Linear", "Embedding", "Conv1D")  # the last is transformers' name of GPT-2's matrices, and no convolution


class OwnModule(nn.Module):
    """A module of the user's own: int64 tokens `[B, T]` to logits `[B, T, V]`, or with the targets to the loss.

    Args:
        module: what the user has built. It is called with the tokens, and with the targets as well where its forward
            has a parameter `targets`. It returns a tensor, or a tuple, a mapping or an object that holds one: `loss`
            before `logits`. A scalar is the mean loss in nats over these tokens.
        source: what errors call it.
        vocabulary: V, the least number of logits of a token.
        blocks: dotted name of the list of its blocks, or None.
    """

    def __init__(self, module: nn.Module, *, source: str, vocabulary: int, blocks: str | None) -> None:
        super().__init__()
        self.module = module
        self.source = source
        self.vocabulary = vocabulary
        self.blocks_name = None if blocks is None else f"module.{blocks}"
        self.takes_targets = "targets" in inspect.signature(module.forward).parameters
        self._options = {"use_cache": False} if "use_cache" in inspect.signature(module.forward).parameters else {}

    def forward(self, tokens_BT: Tensor, targets_BT: Tensor | None = None) -> Tensor:
        """Return the logits `[B, T, V]` of the token after each position; with targets, the mean loss in nats.

        Raises:
            OwnCodeError: the module returned something else, or something without a gradient.
        """
        with_targets = targets_BT is not None and self.takes_targets
        given = (tokens_BT, targets_BT) if with_targets else (tokens_BT,)
        output = _answer(self.module(*given, **self._options))
        if not isinstance(output, Tensor) or not output.is_floating_point() or not self._is_answer(output, tokens_BT):
            got = f"{output.dtype} {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
            raise OwnCodeError(
                f"`{self.source}` must return logits [{tokens_BT.shape[0]}, {tokens_BT.shape[1]}, {self.vocabulary} or "
                f"more] or a loss, got {got}"
            )
        if torch.is_grad_enabled() and not output.requires_grad:
            raise OwnCodeError(f"`{self.source}` must return what its parameters have a gradient of, got no gradient")
        return output if targets_BT is None or output.dim() == 0 else next_token_loss(output, targets_BT)

    def _is_answer(self, output: Tensor, tokens_BT: Tensor) -> bool:
        is_logits = output.shape[:-1] == tokens_BT.shape and output.shape[-1] >= self.vocabulary
        return is_logits or output.dim() == 0


def build(
    own: OwnModel,
    *,
    vocabulary: int,
    context: int,
    attention: Attention,
    dtype: torch.dtype,
    device: torch.device | str,
) -> OwnModule:
    """Build a model of the user's own, in evaluation mode: without dropout, so that a loss can be checked.

    Args:
        own: what config.yaml says of it.
        vocabulary: V.
        context: T.
        attention: for models that take one.
        dtype: of floating-point parameters.
        device: of all parameters; `meta` creates shapes only.

    Raises:
        OwnCodeError: it cannot be built; one sentence.
    """
    conversion = versions.modules_convert() if versions.tensors_are_fake() else contextlib.nullcontext()
    with own_code.guarded(own.source), torch.device(device), _default(dtype), conversion:
        if own.hf is not None:
            module: Any = hugging_face.build(own, vocabulary=vocabulary, attention=attention, dtype=dtype)
        else:
            offered = {"vocabulary": vocabulary, "context": context, "attention": attention}
            offered |= {} if own.layers is None else {"layers": own.layers}
            module = _call(str(own.module), offered)
        if not isinstance(module, nn.Module):
            raise OwnCodeError(f"`{own.source}` must return an nn.Module, got {type(module).__name__}")
        _convert(module, own.source, dtype, torch.device(device))
    if not any(each.requires_grad for each in module.parameters()):
        raise OwnCodeError(f"`{own.source}` must have parameters that require a gradient, got none")
    return OwnModule(module.eval(), source=own.source, vocabulary=vocabulary, blocks=own.blocks)


def _convert(module: nn.Module, source: str, dtype: torch.dtype, device: torch.device) -> None:
    """Move parameters and buffers that have another dtype or device, ties kept; buffers keep their dtype.

    Not by `Module.to`, which cannot change the dtype of fake parameters.

    Raises:
        OwnCodeError: one has no values that could be moved.
    """
    made: dict[Tensor, nn.Parameter] = {}
    for each in module.modules():
        for name, found in list(each.named_parameters(recurse=False, remove_duplicate=False)):
            wanted = dtype if found.is_floating_point() else found.dtype
            if (found.dtype, found.device.type) != (wanted, device.type):
                _refuse_meta(found, source, device)
                if found not in made:
                    made[found] = nn.Parameter(found.detach().to(device, wanted), requires_grad=found.requires_grad)
                setattr(each, name, made[found])
        for name, held in list(each.named_buffers(recurse=False, remove_duplicate=False)):
            if held.device.type != device.type:
                _refuse_meta(held, source, device)
                setattr(each, name, held.to(device))


def _refuse_meta(tensor: Tensor, source: str, device: torch.device) -> None:
    if tensor.is_meta:
        raise OwnCodeError(
            f"`{source}` must build parameters and buffers that have values, on {device} or the CPU, got some on meta"
        )


def takes_attention(own: OwnModel) -> bool:
    """Return whether the cell's attention gets into the model; a function has to have a parameter of that name.

    Raises:
        OwnCodeError: the function cannot be loaded.
    """
    return own.hf is not None or "attention" in inspect.signature(own_code.load(str(own.module))).parameters


def sharded_classes(model: nn.Module, own: OwnModel) -> tuple[type[nn.Module], ...]:
    """Return the classes of the modules in `model` whose matrices FSDP shards.

    Raises:
        OwnCodeError: config.yaml names a class that no module has.
    """
    for name in own.sharded:
        if not classes_named(model, [name]):
            raise OwnCodeError(
                f"`sharded` of `{own.source}` must name classes of its modules, got {name}; {_with_parameters(model)}"
            )
    return classes_named(model, own.sharded or SHARDED)


def nothing_to_shard(model: nn.Module, own: OwnModel) -> OwnCodeError:
    """Return the error that FSDP would find no matrix in a model."""
    return OwnCodeError(
        f"`{own.source}` must have matrices in modules of the classes {', '.join(own.sharded or SHARDED)} to be "
        f"sharded, or `sharded` in config.yaml must name others; {_with_parameters(model)}"
    )


def _with_parameters(model: nn.Module) -> str:
    inside = {type(each).__name__ for each in model.modules() if any(True for _ in each.parameters(recurse=False))}
    return f"those with parameters are {', '.join(sorted(inside))}"


def classes_named(module: nn.Module, names: Iterable[str]) -> tuple[type[nn.Module], ...]:
    """Return the classes of the modules inside `module` that have one of these names."""
    wanted = set(names)
    return tuple(dict.fromkeys(type(each) for each in module.modules() if type(each).__name__ in wanted))


def _call(where: str, offered: Mapping[str, Any]) -> Any:
    function: Callable[..., Any] = own_code.load(where)
    parameters = inspect.signature(function).parameters.values()
    if unknown := [each.name for each in parameters if each.default is each.empty and each.name not in offered]:
        raise OwnCodeError(
            f"`{where}` must have parameters among vocabulary, context, attention and layers, or with defaults, "
            f"got {', '.join(unknown)}"
        )
    return function(**{each.name: offered[each.name] for each in parameters if each.name in offered})


def _answer(output: Any) -> Any:
    """Return the loss in what a module has returned, or the logits; or what was returned itself."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list):
        tensors = [each for each in output if isinstance(each, Tensor)]
        return next((each for each in tensors if each.dim() == 0), tensors[0] if tensors else output)
    for key in ("loss", "logits"):
        found = output.get(key) if isinstance(output, Mapping) else getattr(output, key, None)
        if isinstance(found, Tensor):
            return found
    return output


@contextlib.contextmanager
def _default(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
