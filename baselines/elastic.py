"""Elastic Cache (arXiv 2407.18121): less important tokens are merged into their neighbours; one place is evicted from.

The authors' code compares the values of the sorting permutation with a number of tokens where it means ranks, takes
what it merges `first` tokens too early, and keeps one token less (`semantics="release"`).
"""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar

import torch
from torch import Tensor

from lookm.decoding import DecodingStrategy
from lookm.eviction import evicted_positions, top_positions
from lookm.held import Held
from lookm.layer import Layer
from lookm.merging import Kept, Matches, sum_evicted
from lookm.statistics import Needs


@dataclass(frozen=True, kw_only=True)
class Elastic(DecodingStrategy):
    """Keep the first and the last token, and of the others those of the highest head-mean column sums, M + N in all.

    Every other token is merged into the kept token nearest to it, keys and values by their mean. While decoding, the
    cache may hold its share of all tokens; beyond it, the token at a fixed place goes, `distance` before the end that
    the compressed prompt had.

    Attributes:
        first: first tokens that are kept.
        distance: how far before the compressed prompt's end tokens are evicted.
    """

    compresses_text_only: ClassVar[bool] = True

    first: int = 1
    distance: int = 25

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("first", self.first)
        self._check_positive("distance", self.distance)

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(sums=True)

    def promised_tokens(self, is_image: Tensor) -> int:
        length = is_image.numel()
        first, middle, last = self._parts(length)
        return length if sum(self.window_sizes(length)) >= length else first + middle + last

    def promised_recent(self, length: int) -> int:
        return self._parts(length)[2]

    def _parts(self, length: int) -> tuple[int, int, int]:
        """How many of the first tokens, of those between and of the last ones stay; the last one before the others."""
        budget = sum(self.window_sizes(length))
        last = min(1, budget)
        first = min(self.first, budget - last)
        middle = budget - first - last
        return first, max(0, middle - 1) if self.semantics == "release" else middle, last

    def keep(self, layer: Layer) -> Tensor:
        first, middle, last = self._parts(layer.length)
        scores = layer.sums.mean(0, keepdim=True)[:, first : layer.length - last]
        if self.semantics == "paper":
            between = top_positions(scores, middle)
        else:
            order = scores.argsort(dim=-1, stable=True)
            between = top_positions(order, middle)  # where the permutation has its largest values
        ends = torch.arange(layer.length, device=scores.device)[None]
        kept = torch.cat([ends[:, :first], between + first, ends[:, layer.length - last :]], dim=1).sort(dim=1).values
        return kept.expand(layer.kv_heads, -1)

    def merge_into(self, kept: Kept) -> tuple[Tensor, Tensor]:
        layer, positions = kept.layer, kept.positions
        first, middle, _ = self._parts(layer.length)
        released = self.semantics == "release"
        anchors = positions[:, first : first + middle] if released else positions
        if not kept.can_merge or not anchors.shape[1]:
            return kept.keys, kept.values
        evicted = evicted_positions(positions, layer.length)
        if released:
            evicted = evicted - first
        after = torch.searchsorted(anchors.contiguous(), evicted).clamp_max(anchors.shape[1] - 1)
        before = (after - 1).clamp_min(0)
        apart = [(anchors.gather(1, index) - evicted).abs() for index in (before, after)]
        target = torch.where(apart[0] <= apart[1], before, after) + (first if released else 0)
        matches = Matches(evicted, target, torch.ones_like(evicted, dtype=torch.float32))
        sums = sum_evicted(layer.keys, layer.values, matches, positions.shape[1], weighted=False)
        merged = [
            ((own.float() + more) / (sums.n + 1)).to(own.dtype)
            for own, more in ((kept.keys, sums.keys), (kept.values, sums.values))
        ]
        return merged[0], merged[1]

    def constants(self, layer: Layer, positions: Tensor) -> dict[str, Tensor]:
        first, _, last = self._parts(layer.length)
        fixed = max(first, sum(self.window_sizes(layer.length)) - self.distance)  # the first of those kept
        ends = torch.cat([positions[0], positions.new_tensor([layer.length])])
        return {"end": ends[min(fixed, positions.shape[1] - last)].float()[None]}  # the first position that may go

    def held_tokens(self, length: int, kept: int, seen: int) -> int:
        if self.semantics == "release" and self.nominal_budget is not None:
            return ceil(self.nominal_budget * seen)
        return sum(self.window_sizes(seen))

    def step(self, held: Held) -> Tensor:
        return held.oldest(held.positions >= held.constants["end"][:, None])
