"""Scores and budgets → the positions that stay in the cache, in position order.

LOOK-M, arXiv 2406.18139, Eqs. 5–8. Every function works on one prompt; ties go to the earlier position.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor


def top_positions(scores: Tensor, n: int) -> Tensor:
    """The n ≤ L highest-scored positions of each head, best first: (H, L) float32 → (H, n) int64."""
    return scores.argsort(dim=-1, descending=True, stable=True)[:, :n]


def heavy_hitters(scores: Tensor, recent: int, important: int) -> Tensor:
    """The last `recent` positions and the `important` highest-scored before them: (H, L) → (H, K) int64, ascending."""
    length = scores.shape[1]
    return with_recent(top_positions(scores[:, : length - recent], important), length, recent)


def heavy_hitters_key(recent: int, important: int, text_prior: str = "off", sinks: int = 0) -> Hashable:
    """The selection key of strategies that choose by column sums: all that their choice depends on."""
    return "column sums", recent, important, text_prior, sinks


def prior_positions(scores: Tensor, rank: Tensor, n: int) -> Tensor:
    """The n highest-scored positions when those of a lower rank come before all others (Eq. 5).

    Adding max(S) to text's scores has this effect in exact arithmetic; two stable sorts keep it exact in float32,
    where the sum would swallow small scores and make ties. Neither waits for the device.

    Args:
        scores: (H, P) float32.
        rank: (P,) uint8, such as 0 for text and 1 for images.
        n: how many, at most P.

    Returns:
        (H, n) int64.
    """
    by_score = scores.argsort(dim=-1, descending=True, stable=True)
    order = rank[by_score].argsort(dim=-1, stable=True)[:, :n]
    return by_score.gather(1, order)


def top_of_groups(scores: Tensor, marked: Tensor, n_marked: Tensor, n: int) -> Tensor:
    """Of each head the n_marked highest-scored positions among those marked, and the rest of n among the others.

    Args:
        scores: (H, P) float32.
        marked: (P,) bool.
        n_marked: (H,) int64, each from max(0, n − positions not marked) to min(n, positions marked).
        n: how many in all, at most P.

    Returns:
        (H, n) int64, ascending.
    """
    by_score = scores.argsort(dim=-1, descending=True, stable=True)
    is_marked = marked[by_score]  # [H, P], the best first
    place = torch.where(is_marked, is_marked.cumsum(1), (~is_marked).cumsum(1))  # 1 for the best of its group
    allowed = torch.where(is_marked, n_marked[:, None], n - n_marked[:, None])
    first = (place > allowed).to(torch.uint8).argsort(dim=-1, stable=True)[:, :n]
    return by_score.gather(1, first).sort(dim=1).values


def counts_across_heads(scores: Tensor, total: int, least: int) -> list[int]:
    """How many of the `total` highest scores of all heads (H, P) each head has, where each gets `least` ≤ P at first.

    Ties go to the earlier head.
    """
    ordered = scores.sort(dim=-1, descending=True, stable=True).values
    ordered[:, :least] = torch.inf
    chosen = ordered.flatten().argsort(descending=True, stable=True)[:total]
    counts: list[int] = torch.bincount(chosen // scores.shape[1], minlength=scores.shape[0]).tolist()
    return counts


def ragged_top(scores: Tensor, counts: Sequence[int], length: int, recent: int) -> list[Tensor]:
    """Of each head (H, P) its `counts` highest-scored positions and the last `recent`: (counts + recent,) ascending."""
    best = top_positions(scores, max(counts))
    return [with_recent(head[None, :n], length, recent)[0] for head, n in zip(best, counts, strict=True)]


def with_recent(important: Tensor, length: int, recent: int) -> Tensor:
    """Add the last `recent` positions and sort: (H, N) → (H, N + recent) int64 (Eqs. 6 and 7)."""
    window = torch.arange(length - recent, length, device=important.device).expand(important.shape[0], -1)
    return torch.cat([important, window], dim=1).sort(dim=1).values


def evicted_positions(kept: Tensor, length: int) -> Tensor:
    """The complement of `kept` (H, K) in 0 … length − 1, ascending: (H, length − K) int64."""
    before = kept - torch.arange(kept.shape[1], device=kept.device)  # evicted tokens before each kept one
    order = torch.arange(length - kept.shape[1], device=kept.device).expand(kept.shape[0], -1).contiguous()
    return order + torch.searchsorted(before, order, right=True)
