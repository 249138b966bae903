"""KVMerger (arXiv 2407.08454): neighbours with similar keys become one token, weighted by a Gaussian kernel.

The paper merges adjacent keys whose cosine is at least ε. Here ε is, in each head, what leaves as many sets as the
budget has slots: the pairs of the highest cosine are merged. (Its own bisection would end there; its ε of 0.75 promises
no size.) Which tokens the paper leaves alone besides the recent ones is a share of the slots here.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lookm.eviction import evicted_positions, top_positions, with_recent
from lookm.layer import Layer
from lookm.merging import Kept, Matches, rows_at, sum_evicted
from lookm.statistics import Needs
from lookm.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class KVMerger(Strategy):
    """Keep the last M tokens; those before become N sets of neighbours, each stored at its pivot's position.

    The pivot p of a set has the highest column sum. g_i = exp(−‖k_p − k_i‖² / 2σ²), k' = Σ g_i k_i / Σ g_i, and v'
    with the same g.

    Attributes:
        sigma: σ.
        single: share of the N slots for tokens of the highest column sums, which stay single; below one half.
    """

    heads_apart: ClassVar[bool] = True
    compresses_text_only: ClassVar[bool] = True

    sigma: float = 5.0
    single: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_above_zero("sigma", self.sigma)
        self._check_share("single", self.single)

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(sums=True)

    def keep(self, layer: Layer) -> Tensor:
        recent, important = self.window_sizes(layer.length)
        if not important:
            return with_recent(
                torch.empty(layer.kv_heads, 0, dtype=torch.int64, device=layer.keys.device), layer.length, recent
            )
        sums = layer.column_sums()[:, : layer.length - recent]
        by_sum = sums.argsort(dim=-1, descending=True, stable=True)
        ordered = self._sets(layer).gather(1, by_sum)
        by_set = by_sum.gather(1, ordered.argsort(dim=-1, stable=True))  # [Hkv, P]: set by set, the pivot first
        sizes = torch.zeros(layer.kv_heads, important, dtype=torch.int64, device=sums.device)
        sizes.scatter_add_(1, ordered, torch.ones_like(ordered))
        return with_recent(by_set.gather(1, sizes.cumsum(1) - sizes), layer.length, recent)

    def _sets(self, layer: Layer) -> Tensor:
        """The set, 0 … N − 1, of each token before the window: (Hkv, P) int64, ascending."""
        return layer.shared((self.selection_key(layer.length), "sets"), lambda: self._made_sets(layer))

    def _made_sets(self, layer: Layer) -> Tensor:
        recent, important = self.window_sizes(layer.length)
        past = layer.length - recent
        k_hat = F.normalize(layer.keys[:, :past].float(), dim=-1)
        cosine = (k_hat[:, 1:] * k_hat[:, :-1]).sum(-1)  # [Hkv, P − 1]
        alone = top_positions(layer.column_sums()[:, :past], min(int(self.single * important), (important - 1) // 2))
        is_alone = torch.zeros_like(layer.column_sums()[:, :past]).scatter(1, alone, 1.0).bool()
        cosine = cosine.masked_fill(is_alone[:, 1:] | is_alone[:, :-1], -torch.inf)
        joined = torch.zeros_like(cosine).scatter(1, top_positions(cosine, past - important), 1.0)
        return F.pad((1 - joined).cumsum(1), (1, 0)).long()

    def merge_into(self, kept: Kept) -> tuple[Tensor, Tensor]:
        _, important = self.window_sizes(kept.layer.length)
        if not important:
            return kept.keys, kept.values
        layer, n = kept.layer, kept.positions.shape[1]
        past = layer.length - (n - important)
        evicted = evicted_positions(kept.positions, layer.length)  # [Hkv, E], all before the window
        target = self._sets(layer).gather(1, evicted.clamp_max(past - 1))
        keys = layer.keys.float()
        pivots = kept.positions.gather(1, target)
        apart = rows_at(keys, pivots) - rows_at(keys, evicted)  # k_p − k_i
        g = (-apart.square().sum(-1) / (2 * self.sigma**2)).exp()  # [Hkv, E]; the pivot's own is 1
        sums = sum_evicted(layer.keys, layer.values, Matches(evicted, target, g), n, weighted=True)
        total = 1 + torch.zeros_like(kept.positions, dtype=torch.float32).scatter_add(1, target, g)
        merged = [
            ((own.float() + more) / total[..., None]).to(own.dtype)
            for own, more in ((kept.keys, sums.keys), (kept.values, sums.values))
        ]
        return merged[0], merged[1]
