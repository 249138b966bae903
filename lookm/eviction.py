"""Scores and budgets → the positions that stay in the cache, in position order.

LOOK-M, arXiv 2406.18139, Eqs. 5–8. Every function works on one prompt; ties go to the earlier position.
"""

import torch
from torch import Tensor


def top_positions(scores: Tensor, n: int, *, among: Tensor | None = None) -> Tensor:
    """The n highest-scored positions of each head, best first.

    Args:
        scores: (H, L) float32.
        n: how many, at most the number of candidates.
        among: candidate positions (P,) int64 in ascending order, by default all.

    Returns:
        (H, n) int64.
    """
    candidates = scores if among is None else scores[:, among]
    order = candidates.argsort(dim=-1, descending=True, stable=True)[:, :n]
    return order if among is None else among[order]


def prior_positions(scores: Tensor, first: Tensor, n: int) -> Tensor:
    """The n highest-scored positions when those marked `first` outrank all others (Eq. 5).

    Adding max(S) to the marked scores has this effect in exact arithmetic; two choices keep it exact in float32,
    where the sum would swallow small scores and make ties.

    Args:
        scores: (H, P) float32.
        first: (P,) bool.
        n: how many, at most P.

    Returns:
        (H, n) int64.
    """
    marked, others = first.nonzero().squeeze(1), (~first).nonzero().squeeze(1)
    n_marked = min(n, marked.numel())
    return torch.cat(
        [top_positions(scores, n_marked, among=marked), top_positions(scores, n - n_marked, among=others)],
        dim=1,
    )


def with_recent(important: Tensor, length: int, recent: int) -> Tensor:
    """Add the last `recent` positions and sort: (H, N) → (H, N + recent) int64 (Eqs. 6 and 7)."""
    window = torch.arange(length - recent, length, device=important.device).expand(important.shape[0], -1)
    return torch.cat([important, window], dim=1).sort(dim=1).values


def evicted_positions(kept: Tensor, length: int) -> Tensor:
    """The complement of `kept` (H, K) in 0 … length − 1, ascending: (H, length − K) int64."""
    heads, n_kept = kept.shape
    is_evicted = torch.ones(heads, length, dtype=torch.bool, device=kept.device).scatter_(1, kept, False)
    return is_evicted.nonzero()[:, 1].view(heads, length - n_kept)
