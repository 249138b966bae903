"""How much attention each prompt token receives in one layer, without ever holding an L × L matrix.

`A = softmax(Q Kᵀ · scaling)` is causal and float32. It is made block by block over the queries, and only sums over the
queries are kept, so memory is O(H · (L + block · L)). LOOK-M, arXiv 2406.18139, Eq. 4; H2O, arXiv 2306.14048;
SnapKV, arXiv 2404.14469; RoCo, arXiv 2402.06262.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lookm.blocks import rows_per_block


@dataclass(frozen=True)
class Needs:
    """Which statistics a strategy asks for; `|` joins the needs of several strategies."""

    sums: bool = False
    squares: bool = False
    windows: frozenset[int] = frozenset()

    def __or__(self, other: "Needs") -> "Needs":
        return Needs(self.sums or other.sums, self.squares or other.squares, self.windows | other.windows)


@dataclass(frozen=True)
class Statistics:
    """Attention statistics of one prompt in one layer, per query head.

    Attributes:
        length: prompt tokens L.
        kv_heads: key/value heads Hkv; query head h belongs to key/value head h // (Hq / Hkv).
        sums: S_j = Σ_i A[i, j], (Hq, L) float32, or None.
        squares: Σ_i A[i, j]², (Hq, L) float32, or None.
        windows: for each w asked for, Σ A[i, j] over the last w queries, (Hq, L) float32.
    """

    length: int
    kv_heads: int
    sums: Tensor | None
    squares: Tensor | None
    windows: dict[int, Tensor]

    def per_kv_head(self, scores: Tensor) -> Tensor:
        """Average the scores of one group's query heads: (Hq, …) → (Hkv, …)."""
        return scores.unflatten(0, (self.kv_heads, -1)).mean(1)

    def column_sums(self) -> Tensor:
        """S_j, the score of H2O and LOOK-M (Eq. 4), (Hkv, L) float32."""
        assert self.sums is not None, "the strategy's needs() must ask for sums"
        return self.per_kv_head(self.sums)


def attention_statistics(
    queries: Tensor,
    keys: Tensor,
    needs: Needs,
    *,
    scaling: float | None = None,
    log_sum_exp: Tensor | None = None,
    block: int | None = None,
) -> Statistics:
    """Sum the causal attention weights of one prompt over its queries.

    Args:
        queries: (Hq, L, D), after the rotary embedding, any floating dtype.
        keys: (Hkv, L, D); Hq is a multiple of Hkv.
        needs: the sums to make.
        scaling: factor on Q Kᵀ, by default 1 / √D.
        log_sum_exp: (Hq, L) float32 as the attention kernel computed it, or None.
        block: queries at a time, by default as many as `lookm.blocks` allows.

    Returns:
        The statistics, float32, on the device of `queries`.
    """
    heads, length, size = queries.shape
    scaling = size**-0.5 if scaling is None else scaling
    block = block or rows_per_block(heads * length, queries.device)
    sums = queries.new_zeros(heads, length, dtype=torch.float32) if needs.sums else None
    squares = queries.new_zeros(heads, length, dtype=torch.float32) if needs.squares else None
    windows = {w: queries.new_zeros(heads, length, dtype=torch.float32) for w in needs.windows}

    transposed = keys.float().transpose(1, 2)  # [Hkv, D, L]
    all_queries = needs.sums or needs.squares
    first = 0 if all_queries else length - max((min(w, length) for w in windows), default=0)
    for start in range(first, length, block):
        end = min(start + block, length)
        weights = _attention_block(queries, transposed, start, end, scaling)  # [Hq, end - start, end]
        if sums is not None:
            sums[:, :end] += weights.sum(1)
        for w, total in windows.items():
            if end > length - w:
                total[:, :end] += weights[:, max(0, length - w - start) :].sum(1)
        if squares is not None:
            squares[:, :end] += weights.square_().sum(1)
    return Statistics(length, keys.shape[0], sums, squares, windows)


def _attention_block(queries: Tensor, transposed: Tensor, start: int, end: int, scaling: float) -> Tensor:
    """Attention weights of queries start … end − 1 on the keys they may see: (Hq, end − start, end) float32."""
    heads, _, size = queries.shape
    kv_heads, rows = transposed.shape[0], end - start
    q = queries[:, start:end].float() * scaling
    q = q.reshape(kv_heads, heads // kv_heads * rows, size)  # [Hkv, G · rows, D]
    logits = torch.bmm(q, transposed[:, :, :end]).view(heads, rows, end)
    future = torch.ones(rows, rows, dtype=torch.bool, device=queries.device).triu_(1)
    logits[:, :, start:].masked_fill_(future, -torch.inf)
    return logits.softmax(-1)
