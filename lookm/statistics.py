"""How much attention each prompt token receives in one layer, without ever holding an L × L matrix.

`A = softmax(Q Kᵀ · scaling)` is causal and float32. Where the attention kernel's log-sum-exp is at hand, A[i, j] =
exp(q_i · k_j · scaling − lse_i) costs one more Q Kᵀ and no second softmax. It is made tile by tile, only where a key is
visible, and only sums over the queries are kept, so memory is O(H · L + tile). LOOK-M, arXiv 2406.18139, Eq. 4; H2O,
arXiv 2306.14048; SnapKV, arXiv 2404.14469; RoCo, arXiv 2402.06262.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lookm.blocks import Tile, block_begin, rows_per_block, tile_of
from lookm.kernels import fused, give_up


@dataclass(frozen=True)
class Needs:
    """Which statistics a strategy asks for; `|` joins the needs of several strategies."""

    sums: bool = False
    squares: bool = False
    windows: frozenset[int] = frozenset()

    @property
    def all_queries(self) -> bool:
        """Whether sums over all queries are among them, not over the last few alone."""
        return self.sums or self.squares

    def __or__(self, other: "Needs") -> "Needs":
        return Needs(self.sums or other.sums, self.squares or other.squares, self.windows | other.windows)


@dataclass(frozen=True)
class Statistics:
    """Attention statistics of one prompt in one layer, per query head.

    Attributes:
        sums: S_j = Σ_i A[i, j], (Hq, L) float32, or None.
        squares: Σ_i A[i, j]², (Hq, L) float32, or None.
        windows: for each w asked for, Σ A[i, j] over the last w queries, (Hq, L) float32.
    """

    sums: Tensor | None
    squares: Tensor | None
    windows: dict[int, Tensor]

    @classmethod
    def joined(cls, parts: Sequence["Statistics"]) -> "Statistics":
        """Those of several prompts of one length, of which the same sums were made, as those of one with more heads."""

        def cat(sums: Sequence[Tensor | None]) -> Tensor | None:
            return None if sums[0] is None else torch.cat([made for made in sums if made is not None])

        windows = {w: torch.cat([part.windows[w] for part in parts]) for w in parts[0].windows}
        return cls(cat([part.sums for part in parts]), cat([part.squares for part in parts]), windows)

    def of_heads(self, heads: slice) -> "Statistics":
        """Those of some query heads."""
        sums, squares = (None if made is None else made[heads] for made in (self.sums, self.squares))
        return Statistics(sums, squares, {w: made[heads] for w, made in self.windows.items()})


@torch.no_grad()
def attention_statistics(
    queries: Tensor,
    keys: Tensor,
    needs: Needs,
    *,
    scaling: float | None = None,
    log_sum_exp: Tensor | None = None,
    tile: Tile | None = None,
) -> Statistics:
    """Sum the causal attention weights of one prompt over its queries.

    Each sum is made in an order that depends on the shapes alone: what else is needed changes no bit of it.

    Args:
        queries: (Hq, L, D), after the rotary embedding, any floating dtype; products and sums are float32.
        keys: (Hkv, L, D); Hq is a multiple of Hkv.
        needs: the sums to make.
        scaling: factor on Q Kᵀ, by default 1 / √D.
        log_sum_exp: (Hq, L) float32 as the attention kernel computed it; None: one more pass computes it.
        tile: heads × queries × keys at a time, by default as `lookm.blocks` decides.

    Returns:
        The statistics, float32, on the device of `queries`.
    """
    heads, length, size = queries.shape
    kv_heads = keys.shape[0]
    scaling = size**-0.5 if scaling is None else scaling
    totals = RunningSums(needs, queries)
    if totals.first < length:
        if log_sum_exp is None:
            log_sum_exp = causal_log_sum_exp(queries, keys, scaling, first=totals.first)
        if not _fuse(totals, queries, keys, log_sum_exp, scaling):
            tile = tile or tile_of(kv_heads, heads // kv_heads, length, length, queries.device)
            for head in range(0, kv_heads, tile.heads):
                some = slice(head, min(head + tile.heads, kv_heads))
                _add_heads(totals, queries, keys, log_sum_exp, scaling, some, tile)
    return totals.statistics()


@dataclass(frozen=True)
class _Total:
    """Σ A[i, j] ** power over the queries i ≥ first: (Hq, L) float32."""

    power: int
    first: int
    sums: Tensor


class RunningSums:
    """All sums that are needed, to which attention weights are added piece by piece."""

    def __init__(self, needs: Needs, queries: Tensor) -> None:
        """Empty sums for queries (Hq, L, D)."""
        heads, self.length, _ = queries.shape
        self.needs = needs
        wanted = {(1, max(0, self.length - w)) for w in needs.windows} | ({(1, 0)} if needs.sums else set())
        ordered = [*sorted(wanted), *([(2, 0)] if needs.squares else [])]  # the weights are squared in place at last
        self.totals = [_Total(*key, queries.new_zeros(heads, self.length, dtype=torch.float32)) for key in ordered]
        self.first = min((total.first for total in self.totals), default=self.length)

    def add(self, weights: Tensor, heads: slice, start: int, left: int) -> None:
        """Add A[i, j] of some query heads, the queries i from `start` and the keys j from `left`: (h, rows, columns).

        The weights are overwritten.
        """
        weights = weights.float()
        ones = weights.new_ones(1, 1, 1).expand(weights.shape[0], 1, weights.shape[1])
        for total in self.totals:
            if total.power == 2:
                weights.square_()
            skipped = max(0, total.first - start)
            if skipped < weights.shape[1]:
                sums = total.sums[heads, None, left : left + weights.shape[2]]
                sums.baddbmm_(ones[:, :, skipped:], weights[:, skipped:])

    def statistics(self) -> Statistics:
        """The sums as strategies read them."""
        made = {(total.power, total.first): total.sums for total in self.totals}
        return Statistics(
            made.get((1, 0)) if self.needs.sums else None,
            made.get((2, 0)),
            {w: made[1, max(0, self.length - w)] for w in self.needs.windows},
        )


def _fuse(totals: RunningSums, queries: Tensor, keys: Tensor, log_sum_exp: Tensor, scaling: float) -> bool:
    """Fill the sums with Triton's kernel; False where there is none for these tensors."""
    kernel = fused("column_sums", queries, keys)
    if kernel is None:
        return False
    squares = next((total for total in totals.totals if total.power == 2), None)
    firsts = {total.first: total for total in totals.totals if total.power == 1}
    try:
        for first in sorted({*firsts, *([0] if squares else [])}):
            wanted = squares if first == 0 else None
            made = kernel.column_sums(queries, keys, log_sum_exp, scaling, first=first, squares=wanted is not None)
            if first in firsts:
                firsts[first].sums.copy_(made[0])
            if wanted is not None:
                wanted.sums.copy_(made[1])
    except Exception as error:  # whatever Triton's compiler or driver raises
        give_up("column_sums", error)
        for total in totals.totals:
            total.sums.zero_()
        return False
    return True


def _add_heads(
    totals: RunningSums, queries: Tensor, keys: Tensor, log_sum_exp: Tensor, scaling: float, kv: slice, tile: Tile
) -> None:
    """Add the attention of the query heads that belong to the key/value heads `kv`."""
    length, size, kv_heads = queries.shape[1], queries.shape[2], kv.stop - kv.start
    group = queries.shape[0] // keys.shape[0]
    own = slice(kv.start * group, kv.stop * group)
    # −lse and 1 as one more coordinate of queries and keys: the product is then the logarithm of the weight
    q = queries.new_empty(kv_heads, group, length, size + 1, dtype=torch.float32)
    q[..., :size].copy_(queries[own].unflatten(0, (kv_heads, group))).mul_(scaling)
    torch.neg(log_sum_exp[own].unflatten(0, (kv_heads, group)), out=q[..., size])
    k = q.new_ones(kv_heads, size + 1, min(tile.columns, length))
    buffer = q.new_empty(kv_heads * group * tile.rows * k.shape[2])
    for left in range(0, length, k.shape[2]):
        right = min(left + k.shape[2], length)
        k[:, :size, : right - left] = keys[kv, left:right].transpose(1, 2)
        for start in range(max(totals.first, left) // tile.rows * tile.rows, length, tile.rows):
            end = min(start + tile.rows, length)
            seen = min(right, end)
            weights = buffer[: kv_heads * group * (end - start) * (seen - left)]
            rows = q[:, :, start:end].reshape(kv_heads, group * (end - start), size + 1)
            torch.bmm(rows, k[:, :, : seen - left], out=weights.view(kv_heads, -1, seen - left))
            weights = weights.exp_().view(kv_heads * group, end - start, seen - left)
            if start < right:
                _hide_future(weights, start, left)
            totals.add(weights, own, start, left)


def _hide_future(weights: Tensor, start: int, left: int) -> None:
    """Set weights (…, rows, columns) of the queries from `start` on later ones of the keys from `left` to zero."""
    weights[..., max(0, start - left) :].tril_(min(0, start - left))  # they may be infinite: multiplying would not do


def causal_logits(queries: Tensor, keys: Tensor, scaling: float, *, first: int = 0) -> Iterator[tuple[int, Tensor]]:
    """Q Kᵀ · scaling of the queries from `first` on, in blocks, −∞ where a query does not see a key.

    Args:
        queries: (Hq, L, D).
        keys: (Hkv, L, D).
        scaling: factor on Q Kᵀ.
        first: the first query.

    Yields:
        The block's first query i, and its logits (Hq, rows, i + rows) float32, which may be overwritten.
    """
    heads, length, size = queries.shape
    kv_heads = keys.shape[0]
    transposed = keys.float().transpose(1, 2)  # [Hkv, D, L]
    block = rows_per_block(heads * length, queries.device)
    for start in range(first, length, block):
        end = min(start + block, length)
        q = queries[:, start:end].float() * scaling
        logits = torch.bmm(q.reshape(kv_heads, -1, size), transposed[:, :, :end]).view(heads, end - start, end)
        future = torch.ones(end - start, end - start, dtype=torch.bool, device=queries.device).triu_(1)
        logits[:, :, start:].masked_fill_(future, -torch.inf)
        yield start, logits


def causal_log_sum_exp(queries: Tensor, keys: Tensor, scaling: float, *, first: int = 0) -> Tensor:
    """log Σ_{j ≤ i} exp(q_i · k_j · scaling) of each query, block by block, where no attention kernel has told it.

    Args:
        queries: (Hq, L, D).
        keys: (Hkv, L, D).
        scaling: factor on Q Kᵀ.
        first: queries before it may be left out (their values are 0 then).

    Returns:
        (Hq, L) float32.
    """
    result = queries.new_zeros(queries.shape[:2], dtype=torch.float32)
    first = block_begin(first, queries)  # what else is needed changes no block
    for start, logits in causal_logits(queries, keys, scaling, first=first):
        result[:, start : start + logits.shape[1]] = logits.logsumexp(-1)
    return result
