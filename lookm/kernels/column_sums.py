"""Column sums of causal attention in one fused Triton kernel: Q Kᵀ → exp(· − lse) → sums over the queries.

One program owns a block of keys of one query head and walks down the queries that see it, so each sum is made by one
program in one order: no atomics, and two runs agree in every bit. Products and sums are float32; half-precision inputs
are multiplied as they are, float32 inputs without TF32. Oracle: `lookm.statistics.attention_statistics`.
"""
# mypy: disable-error-code="no-untyped-def, import-untyped"

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _column_sums(
    queries, keys, log_sum_exp, sums, squares, scaling, length, first, group,
    q_head, q_row, q_size, k_head, k_row, k_size, lse_head, lse_row,
    SIZE: tl.constexpr, PADDED: tl.constexpr, KEYS: tl.constexpr, QUERIES: tl.constexpr, SQUARES: tl.constexpr,
):  # fmt: skip
    """Σ_i A[i, j] and Σ_i A[i, j]² over the queries first ≤ i for the keys of this program's block."""
    left = tl.program_id(0) * KEYS
    head = tl.program_id(1).to(tl.int64)
    j = left + tl.arange(0, KEYS)
    d = tl.arange(0, PADDED)
    key_pointers = keys + (head // group) * k_head + j[:, None].to(tl.int64) * k_row + d[None, :] * k_size
    block = tl.load(key_pointers, mask=(j[:, None] < length) & (d[None, :] < SIZE), other=0.0)  # [KEYS, PADDED]
    total = tl.zeros([KEYS], dtype=tl.float32)
    total_squares = tl.zeros([KEYS], dtype=tl.float32)
    for start in range(tl.maximum(left, first) // QUERIES * QUERIES, length, QUERIES):
        i = start + tl.arange(0, QUERIES)
        query_pointers = queries + head * q_head + i[None, :].to(tl.int64) * q_row + d[:, None] * q_size
        q = tl.load(query_pointers, mask=(i[None, :] < length) & (d[:, None] < SIZE), other=0.0)  # [PADDED, QUERIES]
        lse = tl.load(log_sum_exp + head * lse_head + i.to(tl.int64) * lse_row, mask=i < length, other=0.0)
        logits = tl.dot(block, q, input_precision="ieee")  # [KEYS, QUERIES]
        weights = tl.exp2((logits * scaling - lse[None, :]) * LOG2_E)
        counted = (i[None, :] >= j[:, None]) & (i[None, :] >= first) & (i[None, :] < length)
        weights = tl.where(counted, weights, 0.0)
        total += tl.sum(weights, axis=1)
        if SQUARES:
            total_squares += tl.sum(weights * weights, axis=1)
    tl.store(sums + head * length + j, total, mask=j < length)
    if SQUARES:
        tl.store(squares + head * length + j, total_squares, mask=j < length)


def column_sums(
    queries: Tensor, keys: Tensor, log_sum_exp: Tensor, scaling: float, *, first: int = 0, squares: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Σ_i A[i, j] over the queries i ≥ first, and if asked for Σ_i A[i, j]².

    Args:
        queries: (Hq, L, D) float32, float16 or bfloat16.
        keys: (Hkv, L, D) of the same dtype; Hq is a multiple of Hkv.
        log_sum_exp: (Hq, L) float32.
        scaling: factor on Q Kᵀ.
        first: the first query that counts.
        squares: whether to make the sums of squares too.

    Returns:
        Two tensors (Hq, L) float32; the second is None unless asked for.
    """
    heads, length, size = queries.shape
    sums = torch.empty(heads, length, device=queries.device)
    sums_of_squares = torch.empty_like(sums) if squares else None
    key_block, query_block = (64, 32) if queries.dtype == torch.float32 else (128, 64)
    with torch.cuda.device_of(queries):
        _column_sums[(triton.cdiv(length, key_block), heads)](
            queries, keys, log_sum_exp, sums, sums if sums_of_squares is None else sums_of_squares,
            scaling, length, first, heads // keys.shape[0],
            *queries.stride(), *keys.stride(), *log_sum_exp.stride(),
            SIZE=size, PADDED=max(16, triton.next_power_of_2(size)), KEYS=key_block, QUERIES=query_block,
            SQUARES=squares, num_warps=4 if size <= 64 else 8,
        )  # fmt: skip
    return sums, sums_of_squares
