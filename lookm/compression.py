"""`compress`: one layer's keys and values, without a model."""

from typing import Any

import torch
from torch import Tensor

from lookm.errors import LookmError
from lookm.generation import resolve_strategy
from lookm.strategy import CompressedRow, Strategy


def compress(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    is_image: Tensor,
    *,
    strategy: str | Strategy,
    alpha1: float | None = None,
    alpha2: float | None = None,
    semantics: str | None = None,
    scaling: float | None = None,
    **fields: Any,
) -> tuple[Tensor, Tensor]:
    """Compress one layer's cache of a batch of prompts of one length.

    Args:
        queries: (B, Hq, L, D), after the rotary embedding, any floating dtype.
        keys: (B, Hkv, L, D).
        values: (B, Hkv, L, Dv).
        is_image: (L,) or (B, L) bool.
        strategy: a name from `configs/strategy`, or a `Strategy`.
        alpha1: share kept as the recent window; default: the strategy's.
        alpha2: share kept as important tokens; default: the strategy's.
        semantics: "paper" or "release"; default: the strategy's.
        scaling: factor on Q Kᵀ, by default 1 / √D.
        **fields: other fields of the strategy, such as `text_prior="strict"`.

    Returns:
        Keys (B, Hkv, K, D) and values (B, Hkv, K, Dv), in position order and in the dtype of the input.

    Raises:
        LookmError: for shapes that do not fit, or rows that keep different numbers of tokens (see `compress_rows`).

    Example:
        >>> keys, values = compress(q, k, v, is_image, strategy="tp_pmerge", alpha1=0.1, alpha2=0.1)
    """
    rows = compress_rows(
        queries, keys, values, is_image,
        strategy=strategy, alpha1=alpha1, alpha2=alpha2, semantics=semantics, scaling=scaling, **fields,
    )  # fmt: skip
    kept = [row.keys.shape[1] for row in rows]
    if len(set(kept)) > 1:
        raise LookmError(f"the rows keep {kept} tokens, which makes no one tensor; use lookm.compress_rows")
    return torch.stack([row.keys for row in rows]), torch.stack([row.values for row in rows])


def compress_rows(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    is_image: Tensor,
    *,
    strategy: str | Strategy,
    scaling: float | None = None,
    **fields: Any,
) -> list[CompressedRow]:
    """As `compress`, one result a row, with the positions that were kept."""
    _check_shapes(queries, keys, values, is_image)
    chosen = resolve_strategy(strategy, **fields)
    images = is_image.to(keys.device).expand(keys.shape[0], -1)
    return [
        chosen.compress_row(q, k, v, image, scaling=scaling)
        for q, k, v, image in zip(queries, keys, values, images, strict=True)
    ]


def _check_shapes(queries: Tensor, keys: Tensor, values: Tensor, is_image: Tensor) -> None:
    shapes = f"queries {tuple(queries.shape)}, keys {tuple(keys.shape)}, values {tuple(values.shape)}"
    if not queries.ndim == keys.ndim == values.ndim == 4:
        raise LookmError(f"{shapes}: all three need four dimensions (batch, heads, tokens, head size)")
    batch, heads, length, size = keys.shape
    if queries.shape[0] != batch or queries.shape[2:] != (length, size) or values.shape[:3] != keys.shape[:3]:
        raise LookmError(f"{shapes}: batch, tokens and head size must agree")
    if heads == 0 or queries.shape[1] % heads:
        raise LookmError(f"{shapes}: the query heads must be a multiple of the key/value heads")
    if is_image.dtype != torch.bool or is_image.shape not in ((length,), (batch, length)):
        raise LookmError(
            f"is_image has shape {tuple(is_image.shape)} and dtype {is_image.dtype}; "
            f"it must be bool of shape ({length},) or ({batch}, {length})"
        )
