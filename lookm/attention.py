"""The attention function that hands each layer's queries to the cache.

It is registered with transformers under the name `look_once`, together with a mask function: masks belong to the layer
here, because rows and layers may keep different numbers of tokens.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, causal_mask_function

from lookm.cache import PromptCache
from lookm.errors import LookmError
from lookm.kernels import one_pass
from lookm.kernels.prefill import attention_with_log_sum_exp
from lookm.statistics import Needs, Statistics

NAME = "look_once"
CACHE_ARGUMENT = "look_once_cache"
"""Keyword argument of the model's forward that carries the cache to the attention function."""

UNSUPPORTED = ("sliding_window", "softcap", "s_aux", "position_bias")


def look_once_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """SDPA on the cache; after a prompt, the layer's cache is compressed.

    Args:
        module: the attention layer, with `layer_idx`.
        query: (B, Hq, n, D), after the rotary embedding.
        key: (B, Hkv, held, D), all that the layer's cache holds.
        value: (B, Hkv, held, Dv).
        attention_mask: None; the mask is the cache's.
        scaling: factor on Q Kᵀ.
        dropout: 0 outside training.
        **kwargs: the cache as `look_once_cache`, and what the model passes besides.

    Returns:
        The output (B, n, Hq, Dv) and None for the attention weights.
    """
    cache = kwargs.get(CACHE_ARGUMENT)
    if not isinstance(cache, PromptCache):
        raise LookmError(
            "a model outside look_once shares the configuration object of one inside it; give each model its own"
        )
    for name in UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise LookmError(f"attention with {name}={kwargs[name]!r} is not supported by look_once")
    index = int(module.layer_idx)  # type: ignore[arg-type]
    if cache.layer_is_compressed(index):
        return cache.attend(module, index, query, key, value, scaling), None
    if dropout == 0 and one_pass.serves(query) and any(needs != Needs() for needs in cache.row_needs):
        output, statistics = _prefill_with_statistics(query, key, value, cache, scaling)
        cache.compress(index, cache.prompt_layers(index, query, scaling, None, statistics))
        return output, None
    output, log_sum_exp = _prefill(module, query, key, value, cache.prompt.starts, dropout, scaling)
    cache.compress(index, cache.prompt_layers(index, query, scaling, log_sum_exp, None))
    return output, None


def _prefill_with_statistics(
    query: Tensor, key: Tensor, value: Tensor, cache: PromptCache, scaling: float | None
) -> tuple[Tensor, list[Statistics]]:
    """Causal attention row by row, and each row's statistics: the output (B, L, Hq, Dv), 0 at padding."""
    output = query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[-1])
    statistics = []
    for row, (start, needs) in enumerate(zip(cache.prompt.starts, cache.row_needs, strict=True)):
        q, k, v = (states[row, :, start:] for states in (query, key, value))
        output[row, start:], made = one_pass.attention_with_statistics(q, k, v, needs, scaling)
        statistics.append(made)
    return output, statistics


def _prefill(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: tuple[int, ...],
    dropout: float,
    scaling: float | None,
) -> tuple[Tensor, Tensor | None]:
    """Causal attention without a mask: rows of one length together, so that no L × L mask is ever made.

    Returns:
        The output (B, L, Hq, Dv), 0 at padding, and the log-sum-exp (B, Hq, L) float32 or None.
    """
    if len(set(starts)) == 1 and starts[0] == 0:
        return _causal(module, query, key, value, dropout, scaling)
    output = query.new_zeros(query.shape[0], query.shape[2], query.shape[1], value.shape[-1])
    log_sum_exp: Tensor | None = query.new_zeros(query.shape[:3], dtype=torch.float32)
    for start in sorted(set(starts)):
        rows = torch.tensor([row for row, s in enumerate(starts) if s == start], device=query.device)
        q, k, v = (states[rows, :, start:] for states in (query, key, value))
        output[rows, start:], told = _causal(module, q, k, v, dropout, scaling)
        if told is None or log_sum_exp is None:
            log_sum_exp = None
        else:
            log_sum_exp[rows, :, start:] = told
    return output, log_sum_exp


def _causal(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, dropout: float, scaling: float | None
) -> tuple[Tensor, Tensor | None]:
    """Causal attention of rows of one length: the output (B, L, Hq, Dv), and the log-sum-exp if a kernel tells it."""
    if dropout == 0:
        told = attention_with_log_sum_exp(query, key, value, scaling)
        if told is not None:
            return told[0].transpose(1, 2).contiguous(), told[1]
    return sdpa_attention_forward(module, query, key, value, None, dropout, scaling, is_causal=True)[0], None


def look_once_mask(
    *,
    mask_function: Callable[..., Any] = causal_mask_function,
    allow_is_causal_skip: bool = True,
    **kwargs: Any,
) -> None:
    """No mask for the model: the attention function knows rows and layers. Refuses whatever is not plainly causal."""
    if mask_function is not causal_mask_function or not allow_is_causal_skip:
        raise LookmError(
            "the model asks for attention that is not plainly causal (bidirectional images, sliding window or packed "
            "sequences), which look_once does not support"
        )


AttentionInterface.register(NAME, look_once_attention)
AttentionMaskInterface.register(NAME, look_once_mask)
