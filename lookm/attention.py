"""The attention function that hands each layer's queries to the cache.

It is registered with transformers under the name `look_once`, together with a mask function: masks belong to the layer
here, because rows and layers may keep different numbers of tokens. A forward pass that fills no compressing cache goes
through the attention and the mask that the model had before.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, AttentionMaskInterface, causal_mask_function

from lookm.context import NAME, ForwardPass, eagerly, forward_pass, original_attention, original_name
from lookm.errors import LookmError
from lookm.exact import RealSoftmax, causal_mask
from lookm.kernels import one_pass
from lookm.kernels.prefill import attention_with_log_sum_exp
from lookm.prompt_cache import PromptCache
from lookm.statistics import Statistics

UNSUPPORTED = ("sliding_window", "position_bias")
SOFTMAX = ("softcap", "s_aux")
"""Keyword arguments that change the softmax: capped logits, attention sinks."""


@eagerly
def look_once_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """SDPA on the cache; after a prompt, the layer's cache is compressed.

    Args:
        module: the attention layer, with `layer_idx`.
        query: (B, Hq, n, D), after the rotary embedding.
        key: (B, Hkv, held, D), all that the layer's cache holds.
        value: (B, Hkv, held, Dv).
        attention_mask: as of `look_once_mask`.
        scaling: factor on Q Kᵀ.

    Returns:
        The output (B, n, Hq, Dv), and None for the attention weights where the layer is compressed.

    Raises:
        LookmError: for attention that cannot be compressed: on other keys than those cached, computed twice, ….
    """
    now, index = forward_pass(), getattr(module, "layer_idx", None)
    if now is None or now.cache is None or index is None or index in now.cache.untouched:
        attention = original_attention(module)
        return attention(module, query, key, value, attention_mask, scaling=scaling, dropout=dropout, **kwargs)
    cache = now.cache
    _check(module, query, key, attention_mask, kwargs, now)
    now.attended.add(index)
    if cache.layer_is_compressed(index):
        return _attend(module, index, query, key, value, scaling, kwargs, cache), None
    length = cache.prompt.length
    if not cache.prompt.tail:
        return _compress(module, index, query, key, value, attention_mask, dropout, scaling, kwargs, cache), None
    tail = cache.detach_tail(index)
    q, k, v = (states[:, :, :length] for states in (query, key, value))
    mask = None if attention_mask is None else attention_mask[..., :length, :length]
    output = _compress(module, index, q, k, v, mask, dropout, scaling, kwargs, cache)
    held = cache.update(*tail, index)
    later = _attend(module, index, query[:, :, length:], *held, scaling, kwargs, cache)
    return torch.cat([output, later], dim=1), None


def _attend(
    module: nn.Module,
    index: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    kwargs: dict[str, Any],
    cache: PromptCache,
) -> Tensor:
    """Attention of new tokens on a compressed layer: (B, n, Hq, Dv)."""
    plain = all(kwargs.get(name) is None for name in SOFTMAX)
    attend = None if plain else partial(_decode_exactly, module, scaling, kwargs)
    return cache.attend(module, index, query, key, value, scaling, attend)


def _compress(
    module: nn.Module,
    index: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    kwargs: dict[str, Any],
    cache: PromptCache,
) -> Tensor:
    """The prompt's attention (B, L, Hq, Dv); then its layer is compressed."""
    plain = mask is None and all(kwargs.get(name) is None for name in SOFTMAX)
    log_sum_exp: Tensor | None = None
    statistics: list[Statistics] | None = None
    real: list[RealSoftmax] | None = None
    if not plain:
        output, real = _prefill_exactly(module, query, key, value, mask, dropout, scaling, kwargs, cache)
    elif dropout == 0 and one_pass.serves(query) and any(needs.all_queries for needs in cache.row_needs):
        output, statistics = _prefill_with_statistics(query, key, value, cache, scaling)
    else:
        output, log_sum_exp = _prefill(module, query, key, value, cache.prompt.starts, dropout, scaling)
    has_rotary = bool(getattr(module, "use_rope", True))
    rows = cache.prompt_layers(index, query, scaling, log_sum_exp, statistics, real=real, rotary=has_rotary)
    cache.compress(index, rows)
    return output


def _check(
    module: nn.Module, query: Tensor, key: Tensor, mask: Tensor | None, kwargs: dict[str, Any], now: ForwardPass
) -> None:
    """Refuse a layer whose attention is not that of each token on the cached keys before it and its own."""
    assert now.cache is not None
    index = int(module.layer_idx)  # type: ignore[arg-type]
    compressed = now.cache.layer_is_compressed(index)
    held = None if compressed else getattr(now.cache.layers[index], "keys", None)
    reason = None
    if index in now.attended:
        reason = "computes its attention twice"
    elif compressed:
        reason = "has a mask of its own after the prompt" if mask is not None and _hides(mask) else None
    elif mask is None and (not getattr(module, "is_causal", True) or kwargs.get("is_causal") is False):
        reason = "lets tokens attend to later ones without a mask (is_causal is False)"
    elif key.shape[2] != query.shape[2]:
        reason = f"attends to {key.shape[2]} keys from {query.shape[2]} tokens"
    elif held is None or held.shape != key.shape:
        reason = "caches something else than the keys it attends to"
    for name in UNSUPPORTED:
        if kwargs.get(name) is not None:
            reason = f"uses {name}={kwargs[name]!r}"
    if reason is not None:
        raise LookmError(f"layer {index} ({type(module).__name__}) {reason}, which look_once does not support")


def _hides(mask: Tensor) -> bool:
    """Whether a mask hides any key: bool, true for what is seen, or added to the logits."""
    return not bool(mask.all()) if mask.dtype == torch.bool else bool((mask < 0).any())


def _prefill_exactly(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    scaling: float | None,
    kwargs: dict[str, Any],
    cache: PromptCache,
) -> tuple[Tensor, list[RealSoftmax]]:
    """The model's own attention under its real mask, and how each row attends: the output (B, L, Hq, Dv)."""
    if mask is None:
        mask = causal_mask(cache.prompt.starts, query)
    attention = original_attention(module)
    output = attention(module, query, key, value, mask, scaling=scaling, dropout=dropout, **kwargs)[0]
    softmax = {"softcap": kwargs.get("softcap"), "sinks": kwargs.get("s_aux")}
    starts = enumerate(cache.prompt.starts)
    return output, [RealSoftmax(mask[row, :, start:, start:], **softmax) for row, start in starts]


def _decode_exactly(
    module: nn.Module,
    scaling: float | None,
    kwargs: dict[str, Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """The model's own attention of new tokens: (rows, n, Hq, Dv)."""
    output: Tensor = original_attention(module)(module, query, key, value, mask, scaling=scaling, **kwargs)[0]
    return output


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
    config: Any = None,
    **kwargs: Any,
) -> Any:
    """The mask as it is outside all blocks, or None for layers that are compressed, where attention knows what is seen.

    A prompt that is not attended to plainly causally (bidirectional images) has its real mask, B × L × L.
    """
    now = forward_pass()
    given = {"mask_function": mask_function, "allow_is_causal_skip": allow_is_causal_skip, "config": config}
    if now is not None and now.cache is not None and kwargs.get("local_size") is None:
        causal = mask_function is causal_mask_function and allow_is_causal_skip
        if not causal and now.new_images:
            raise LookmError(
                "the model's images see each other in both directions, which look_once knows of a prompt only; "
                "show all images before the prompt is compressed"
            )
        if now.cache.get_seq_length() > 0 or causal:
            return None
        given |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    return ALL_MASK_ATTENTION_FUNCTIONS[original_name(config._attn_implementation)](**{**kwargs, **given})


AttentionInterface.register(NAME, look_once_attention)
AttentionMaskInterface.register(NAME, look_once_mask)
