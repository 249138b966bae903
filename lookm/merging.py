"""Merge what is evicted into what is kept: averaged, pivotal, weighted.

LOOK-M, arXiv 2406.18139, Eqs. 9–12. Each evicted token goes to the kept token whose key is most similar to its own,
head by head; keys and values are merged alike. Everything accumulates in float32.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lookm.blocks import rows_per_block
from lookm.eviction import evicted_positions

Merge = Literal["none", "averaged", "pivotal", "weighted"]
Semantics = Literal["paper", "release"]


@dataclass(frozen=True)
class Matches:
    """Which kept token each evicted one goes to.

    Attributes:
        evicted: positions of the evicted tokens, (H, E) int64.
        target: index among the kept tokens, (H, E) int64 (Eq. 9).
        similarity: cosine of the two keys, (H, E) float32.
    """

    evicted: Tensor
    target: Tensor
    similarity: Tensor


def match_evicted(keys: Tensor, kept: Tensor, *, block: int | None = None) -> Matches:
    """Find each evicted token's most similar kept token (Eq. 9).

    Args:
        keys: (H, L, D), any floating dtype.
        kept: kept positions, (H, K) int64 ascending, K ≥ 1.
        block: evicted tokens at a time, by default as many as `lookm.blocks` allows.
    """
    heads, length, _ = keys.shape
    evicted = evicted_positions(kept, length)
    block = block or rows_per_block(heads * kept.shape[1], keys.device)
    anchors = _unit(_rows(keys, kept)).transpose(1, 2)  # [H, D, K]
    best = [torch.bmm(_unit(_rows(keys, part)), anchors).max(-1) for part in evicted.split(block, dim=1)]
    target = torch.cat([b.indices for b in best], dim=1) if best else evicted
    similarity = torch.cat([b.values for b in best], dim=1) if best else evicted.float()
    return Matches(evicted, target, similarity)


def merge_evicted(
    keys: Tensor, values: Tensor, kept: Tensor, how: Merge, *, semantics: Semantics = "paper"
) -> tuple[Tensor, Tensor]:
    """Keep `kept` and merge the rest into it.

    Args:
        keys: (H, L, D).
        values: (H, L, Dv).
        kept: kept positions, (H, K) int64 ascending.
        how: "none" gathers only.
        semantics: "release" merges, in the averaged and weighted way, only the rows that the released code selects.

    Returns:
        Keys (H, K, D) and values (H, K, Dv) in the dtype of the input.
    """
    if how == "none" or kept.shape[1] in (0, keys.shape[1]):
        return _rows(keys, kept), _rows(values, kept)
    matches = match_evicted(keys, kept)
    if semantics == "release" and how != "pivotal":
        matches = _released_rows(matches, misaligned=how == "averaged")
    counts = torch.zeros(kept.shape, device=keys.device).scatter_add_(
        1, matches.target, torch.ones_like(matches.similarity)
    )
    return _merge(keys, kept, matches, counts, how), _merge(values, kept, matches, counts, how)


def _released_rows(matches: Matches, *, misaligned: bool) -> Matches:
    """The rows that the released code merges: similarity averaged over heads ≥ the overall mean, for all heads alike.

    Its averaged merge pairs the targets of the n selected rows with the first n evicted rows.
    """
    selected = matches.similarity.mean(0) >= matches.similarity.mean()  # [E]
    target, similarity = matches.target[:, selected], matches.similarity[:, selected]
    source = matches.evicted[:, : target.shape[1]] if misaligned else matches.evicted[:, selected]
    return Matches(source, target, similarity)


def _merge(states: Tensor, kept: Tensor, matches: Matches, counts: Tensor, how: Merge) -> Tensor:
    """x_c ← (own weight · x_c + Σ_e weight_e · x_e) / (n + 1) over the tokens e that chose c; (H, K, D)."""
    own = _rows(states, kept).float()  # [H, K, D]
    if how == "weighted":  # Eq. 12
        weight, own_weight = matches.similarity, torch.ones_like(counts)
    elif how == "pivotal":  # Eq. 11: each e enters as the mean of itself and x_c
        weight, own_weight = torch.full_like(matches.similarity, 0.5), 1 + counts / 2
    else:  # Eq. 10
        weight, own_weight = torch.ones_like(matches.similarity), torch.ones_like(counts)
    source = _rows(states, matches.evicted).float() * weight.unsqueeze(-1)  # [H, E, D]
    total = own * own_weight.unsqueeze(-1)
    total.scatter_add_(1, matches.target.unsqueeze(-1).expand_as(source), source)
    return (total / (counts + 1).unsqueeze(-1)).to(states.dtype)


def _rows(states: Tensor, positions: Tensor) -> Tensor:
    """Gather positions (H, N) from states (H, L, D): (H, N, D)."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def _unit(vectors: Tensor) -> Tensor:
    vectors = vectors.float()
    return vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
