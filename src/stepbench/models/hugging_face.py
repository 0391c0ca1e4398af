"""Decoders of transformers, from a config.json on disk: random weights, our attention, no download."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stepbench import own_code
from stepbench.models.layers import Attention
from stepbench.models.own import OwnModel
from stepbench.own_code import OwnCodeError

_numbers = itertools.count()


def build(own: OwnModel, *, vocabulary: int, attention: Attention, dtype: torch.dtype) -> nn.Module:
    """Return transformers' causal language model of a config.json, on the current default device.

    Args:
        own: with the path.
        vocabulary: V, in the place of the configuration's.
        attention: what its layers call, handed in through transformers' own registry.
        dtype: of the parameters.

    Raises:
        OwnCodeError: transformers is not installed, or this is no configuration of a causal language model.
    """
    import transformers

    config = _config(own)
    if type(config) not in transformers.AutoModelForCausalLM._model_mapping:
        raise OwnCodeError(f"`{own.source}` must describe a causal language model, got {config.model_type}")
    config.vocab_size = vocabulary
    # Ids of special tokens may lie above a vocabulary that was made smaller.
    config.pad_token_id = config.bos_token_id = config.eos_token_id = None
    if own.layers is not None:
        config.num_hidden_layers = min(own.layers, config.num_hidden_layers)
        if getattr(config, "layer_types", None):
            config.layer_types = config.layer_types[: config.num_hidden_layers]
    made: nn.Module = transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation=_register(own.source, attention), dtype=dtype
    )
    return made


@functools.cache
def positions_of(own: OwnModel) -> int | None:
    """Return the longest context that a config.json names, learned or not; None where it names none.

    Raises:
        OwnCodeError: transformers is not installed, or does not know this configuration.
    """
    with own_code.guarded(own.source):
        found = getattr(_config(own), "max_position_embeddings", None)  # by this name GPT-2 has its n_positions too
    return found if isinstance(found, int) and found > 0 else None


def _config(own: OwnModel) -> Any:
    try:
        import transformers
    except ImportError:
        raise OwnCodeError(
            f"`{own.source}` needs transformers, which is not installed: pip install 'stepbench[hf]'"
        ) from None
    if not Path(own.path).is_file():
        raise OwnCodeError(f"`{own.source}` must be a file that exists")
    try:
        return transformers.AutoConfig.from_pretrained(own.path, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        said = str(error).strip().splitlines()
        raise OwnCodeError(
            f"`{own.source}` must be a configuration that transformers {transformers.__version__} knows, got "
            f"{type(error).__name__}: {said[0] if said else ''}"
        ) from error


def vocabulary_of(own: OwnModel) -> int:
    """Return the number of token ids that a config.json names.

    Raises:
        OwnCodeError: the file cannot be read, or names none.
    """
    import json

    try:
        found = json.loads(Path(own.path).read_text(encoding="utf-8")).get("vocab_size")
    except (OSError, ValueError, AttributeError) as error:
        raise OwnCodeError(f"`{own.source}` must be a readable JSON file, got {error}") from None
    if type(found) is not int or found < 1:
        raise OwnCodeError(f"`{own.source}` must name a vocab_size, or config.yaml a vocabulary, got {found!r}")
    return found


def _register(source: str, attention: Attention) -> str:
    """Register an attention with transformers, and the mask that it needs, which is none; return the name."""
    from transformers import AttentionInterface, AttentionMaskInterface

    name = f"stepbench_{next(_numbers)}"
    AttentionInterface.register(name, _adapted(source, attention))
    AttentionMaskInterface.register(name, _no_mask(source))
    return name


def _adapted(source: str, attention: Attention) -> Callable[..., tuple[Tensor, None]]:
    def attend(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        softcap: float | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        if attention_mask is not None or softcap is not None or not getattr(module, "is_causal", True):
            raise OwnCodeError(f"`{source}` must have plain causal attention, got a mask of its own or capped scores")
        # Ours divides scores by √D.
        usual = query.shape[-1] ** -0.5
        if scaling is not None and scaling != usual:
            query = query * (scaling / usual)
        return attention(query, key, value, is_causal=True).transpose(1, 2), None

    return attend


def _no_mask(source: str) -> Callable[..., None]:
    def mask(*_: Any, kv_length: int, local_size: int | None = None, **__: Any) -> None:
        # Whether the mask is causal cannot be seen: on fake tensors transformers hands out a function that would
        # separate packed sequences, although there are none.
        if local_size is not None and local_size < kv_length:
            raise OwnCodeError(f"`{source}` must have plain causal attention, got a window of {local_size} tokens")

    return mask
