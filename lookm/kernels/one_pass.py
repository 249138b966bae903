"""Causal attention and its statistics in one pass, on the CPU in float32.

A block of query rows sees all its keys at once, so its softmax is final: the block's weights make the output and the
sums over the queries before they are forgotten. This needs no second Q Kᵀ and costs less than the attention kernel
followed by `lookm.statistics.attention_statistics`, its oracle. In half precision the CPU's own kernel is so much
faster that the second Q Kᵀ is cheaper; on a GPU it is fused.
"""

import torch
from torch import Tensor

from lookm.statistics import Needs, RunningSums, Statistics

BLOCK_ELEMENTS = 1 << 19
"""Weights of one block, 2 MiB: what a core's own cache holds."""

MIN_ROWS, MAX_ROWS = 64, 128
"""Query rows of one block: fewer waste a matrix product's time, more compute what causality hides."""


def serves(query: Tensor) -> bool:
    """Whether these queries are better attended here than by the device's own kernel."""
    differentiated = torch.is_grad_enabled() and query.requires_grad
    return query.device.type == "cpu" and query.dtype in (torch.float32, torch.float64) and not differentiated


@torch.no_grad()
def attention_with_statistics(
    queries: Tensor, keys: Tensor, values: Tensor, needs: Needs, scaling: float | None, *, rows: int | None = None
) -> tuple[Tensor, Statistics]:
    """Attend one whole prompt and sum its weights.

    Args:
        queries: (Hq, L, D), after the rotary embedding.
        keys: (Hkv, L, D); Hq is a multiple of Hkv.
        values: (Hkv, L, Dv).
        scaling: factor on Q Kᵀ, by default 1 / √D.
        rows: queries of one head at a time, by default as many as stay in the cache.

    Returns:
        The output (L, Hq, Dv), and the statistics.
    """
    heads, length, size = queries.shape
    kv_heads = keys.shape[0]
    group = heads // kv_heads
    rows = min(length, rows or min(MAX_ROWS, max(MIN_ROWS, BLOCK_ELEMENTS // length)) // group or 1)
    # Key/value heads: one for each thread, whose block then stays in one core's cache, or more if they are small.
    at_once = max(torch.get_num_threads(), BLOCK_ELEMENTS // (rows * group * length))
    totals = RunningSums(needs, queries)
    output = queries.new_empty(length, heads, values.shape[-1])
    scaled = queries * (size**-0.5 if scaling is None else scaling)
    future = torch.ones(rows, rows, dtype=torch.bool).triu_(1)
    buffer = queries.new_empty(min(at_once, kv_heads) * group * rows * length)  # new memory for each block is slow
    for head in range(0, kv_heads, at_once):
        kv = slice(head, min(head + at_once, kv_heads))
        own = slice(kv.start * group, kv.stop * group)
        k, v = keys[kv].transpose(1, 2).contiguous(), values[kv].contiguous()  # every block of rows reads them anew
        for start in range(0, length, rows):
            end = min(start + rows, length)
            q = scaled[own, start:end].reshape(kv.stop - kv.start, group * (end - start), size)
            weights = buffer[: q.shape[0] * q.shape[1] * end].view(q.shape[0], q.shape[1], end)
            torch.bmm(q, k[:, :, :end], out=weights)
            each = weights.view(-1, end - start, end)  # [query heads, queries, keys]
            each[:, :, start:].masked_fill_(future[: end - start, : end - start], -torch.inf)
            torch.softmax(each, -1, out=each)
            attended = torch.bmm(weights, v[:, :end])
            output[start:end, own] = attended.view(-1, end - start, values.shape[-1]).transpose(0, 1)
            totals.add(each, own, start, 0)
    return output, totals.statistics()
