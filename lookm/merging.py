"""Which kept token each evicted one is merged into, and the sums over the evicted tokens of each kept one.

LOOK-M, arXiv 2406.18139, Eq. 9: each evicted token goes to the kept token whose key is most similar to its own, head
by head, its value likewise. What is made of the sums (Eqs. 10–12) stands in `lookm.method`. All is float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from lookm.blocks import rows_per_block
from lookm.eviction import evicted_positions
from lookm.kernels import fused, give_up
from lookm.layer import Layer


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


@dataclass(frozen=True)
class Sums:
    """Σ_e over the evicted tokens e of each kept one, float32: keys (H, K, D), values (H, K, Dv), n (H, K, 1)."""

    keys: Tensor
    values: Tensor
    n: Tensor


@torch.no_grad()
def match_evicted(keys: Tensor, kept: Tensor, *, block: int | None = None) -> Matches:
    """Find each evicted token's most similar kept token (Eq. 9); of equally similar ones, the earliest.

    Args:
        keys: (H, L, D), any floating dtype.
        kept: kept positions, (H, K) int64 ascending, K ≥ 1.
        block: evicted tokens of one head at a time, by default as many as `lookm.blocks` allows.
    """
    heads, length, _ = keys.shape
    evicted = evicted_positions(kept, length)
    kernel = fused("best_match", keys)
    if kernel is not None:
        try:
            return Matches(evicted, *kernel.best_match(keys, evicted, kept))
        except Exception as error:  # whatever Triton's compiler or driver raises
            give_up("best_match", error)
    target, similarity = torch.empty_like(evicted), torch.empty_like(evicted, dtype=torch.float32)
    norms = _norms(keys)
    block = min(block or rows_per_block(kept.shape[1], keys.device), max(1, evicted.shape[1]))
    at_once = max(1, rows_per_block(kept.shape[1], keys.device) // block)  # heads
    buffer = similarity.new_empty(min(at_once, heads) * kept.shape[1] * block)  # new memory for each block is slow
    for head in range(0, heads, at_once):
        some = slice(head, min(head + at_once, heads))
        anchors = rows_at(keys[some], kept[some]).float() / norms[some].gather(1, kept[some]).unsqueeze(-1)  # [h, K, D]
        for start in range(0, evicted.shape[1], block):
            part = some, slice(start, start + block)
            rows = rows_at(keys[some], evicted[part]).float()  # [h, e, D]
            shape = rows.shape[0], rows.shape[1], kept.shape[1]
            similarity[part], target[part] = highest(rows, anchors, buffer[: prod(shape)].view(shape))
    return Matches(evicted, target, similarity / norms.gather(1, evicted))


def highest(rows: Tensor, anchors: Tensor, buffer: Tensor) -> tuple[Tensor, Tensor]:
    """max_c row_e · anchor_c and the first c that has it: (h, e, D), (h, K, D) → (h, e), by way of buffer (h, e, K)."""
    value, index = torch.bmm(rows, anchors.transpose(1, 2), out=buffer).max(-1)
    return value, index


class Kept:
    """What stays of one layer, and what the ways of merging the rest into it share, made when first asked for."""

    def __init__(self, layer: Layer, positions: Tensor) -> None:
        """One prompt in one layer, and the positions (Hkv, K) int64 ascending that stay of it."""
        self.layer, self.positions = layer, positions
        self._sums: dict[tuple[bool, bool], Sums] = {}

    @cached_property
    def keys(self) -> Tensor:
        """Keys of the kept tokens as they are, (H, K, D)."""
        return rows_at(self.layer.keys, self.positions)

    @cached_property
    def values(self) -> Tensor:
        """Values of the kept tokens as they are, (H, K, Dv)."""
        return rows_at(self.layer.values, self.positions)

    @cached_property
    def matches(self) -> Matches:
        """Each evicted token's most similar kept token (Eq. 9)."""
        return match_evicted(self.layer.keys, self.positions)

    @property
    def can_merge(self) -> bool:
        """Whether there is something to merge, and something to merge it into."""
        return 0 < self.positions.shape[1] < self.layer.keys.shape[1]

    def sums(self, *, weighted: bool = False, released: bool = False) -> Sums:
        """Sums over the evicted tokens of each kept one.

        Args:
            weighted: whether each evicted token enters times its similarity.
            released: only the rows that LOOK-M's released code selects, for its averaged or weighted merge.
        """
        if (weighted, released) not in self._sums:
            matches = _released_rows(self.matches, misaligned=not weighted) if released else self.matches
            self._sums[weighted, released] = sum_evicted(
                self.layer.keys, self.layer.values, matches, self.positions.shape[1], weighted=weighted
            )
        return self._sums[weighted, released]


def kept_of_heads(layer: Layer, positions: Sequence[Tensor]) -> list[Kept]:
    """Each head by itself, where they keep different numbers: positions (K_h,) int64 ascending of each."""
    return [Kept(layer.head(number), head[None]) for number, head in enumerate(positions)]


def sum_evicted(keys: Tensor, values: Tensor, matches: Matches, n_kept: int, *, weighted: bool) -> Sums:
    """Sum the evicted tokens of each kept one, in float32 and always in the same order.

    Args:
        keys: (H, L, D).
        values: (H, L, Dv).
        weighted: whether each token enters times its similarity (Eq. 12).
    """
    heads = keys.shape[0]
    first_slot = n_kept * torch.arange(heads, device=keys.device).unsqueeze(1)
    slots = (matches.target + first_slot).flatten()  # [H · E]
    counts = torch.zeros(heads * n_kept, dtype=torch.int64, device=keys.device)
    counts.scatter_add_(0, slots, torch.ones_like(slots))
    add = add_in_order if keys.device.type == "cpu" else add_sorted
    sums = []
    for states in (keys, values):
        source = rows_at(states, matches.evicted).float()  # [H, E, D]
        if weighted:
            source = source * matches.similarity.unsqueeze(-1)
        sums.append(add(source.flatten(0, 1), slots, counts).unflatten(0, (heads, n_kept)))
    return Sums(sums[0], sums[1], counts.view(heads, n_kept, 1).float())


def add_in_order(source: Tensor, slots: Tensor, counts: Tensor) -> Tensor:
    """Add the rows of source (E, D) into slots (E,) one after the other: on a CPU, `index_add_` does. (S, D)."""
    return source.new_zeros(counts.shape[0], source.shape[1]).index_add_(0, slots, source)


def add_sorted(source: Tensor, slots: Tensor, counts: Tensor) -> Tensor:
    """As `add_in_order` without a GPU's atomics: sort by slot, then sum segments of `counts` (S,) rows. (S, D)."""
    ordered = source[slots.argsort(stable=True)]
    return torch.segment_reduce(ordered, "sum", lengths=counts, unsafe=True)


def _released_rows(matches: Matches, *, misaligned: bool) -> Matches:
    """The rows that the released code merges: similarity averaged over heads ≥ the overall mean, for all heads alike.

    Its averaged merge pairs the targets of the n selected rows with the first n evicted rows.
    """
    selected = matches.similarity.mean(0) >= matches.similarity.mean()  # [E]
    target, similarity = matches.target[:, selected], matches.similarity[:, selected]
    source = matches.evicted[:, : target.shape[1]] if misaligned else matches.evicted[:, selected]
    return Matches(source, target, similarity)


def rows_at(states: Tensor, positions: Tensor) -> Tensor:
    """Gather positions (H, N) from states (H, L, D): (H, N, D)."""
    heads, length, size = states.shape
    head = torch.arange(heads, device=states.device).unsqueeze(1)
    if heads > 1 and not states.is_contiguous():
        return states[head, positions]
    flat = (positions + length * head).flatten()
    return states.reshape(-1, size).index_select(0, flat).view(heads, -1, size)  # whole rows; gather would be slow


def _norms(keys: Tensor) -> Tensor:
    """Length of each key in float32, never 0: (H, L, D) → (H, L)."""
    keys = keys.float() if keys.dtype == torch.float64 else keys  # a norm cannot be narrower than its input
    norms = torch.linalg.vector_norm(keys, dim=-1, dtype=torch.float32)
    return norms.clamp_min(torch.finfo(torch.float32).tiny)
