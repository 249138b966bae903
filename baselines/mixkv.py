"""MixKV (arXiv 2510.20707): importance where keys are diverse anyway, diversity where they repeat each other.

r̄, the mean cosine of two different keys, weighs the two in each head. The authors read it from a file made offline;
here it is the prompt's own: r̄ = (L‖mean k̂‖² − 1) / (L − 1). Their window of 32 queries fits the budget here, as
SnapKV's.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from lookm.layer import Layer
from lookm.ranking import RankedStrategy, fitting_window
from lookm.statistics import Needs


@dataclass(frozen=True, kw_only=True)
class MixKV(RankedStrategy):
    """Score s = (1 − r̄) · imp + r̄ · div before an observation window of w queries, which stays, as in SnapKV.

    imp = pooled mean window attention + ‖v‖, div = −k̂_j · mean(k̂); ‖v‖ and div are rescaled: to 0 … 1, then to the mean
    of the importance so far.

    Attributes:
        window: w; None: min(32, max(1, (M + N) // 4)).
        kernel: width of the pooling over positions, odd.
    """

    heads_apart: ClassVar[bool] = True
    compresses_text_only: ClassVar[bool] = True

    window: int | None = None
    kernel: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None:
            self._check_positive("window", self.window)
        self._check_positive("kernel", self.kernel, odd=True)

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(windows=frozenset({self._observed(is_image.numel())}))

    def promised_recent(self, length: int) -> int:
        return fitting_window(self.window, sum(self.window_sizes(length)))

    def selection_key(self, length: int) -> Hashable:
        window, budget = self.promised_recent(length), sum(self.window_sizes(length))
        return type(self), window, budget, self.kernel, self.prior, self.semantics

    def scores(self, layer: Layer) -> Tensor:
        past = layer.length - self.promised_recent(layer.length)
        return layer.shared((type(self), past, self.kernel), lambda: self._mixed(layer, past))

    def _observed(self, length: int) -> int:
        return max(1, self.promised_recent(length))

    def _mixed(self, layer: Layer, past: int) -> Tensor:
        length, w = layer.length, self._observed(layer.length)
        attention = layer.per_kv_head(layer.window(w))[:, :past] / w
        imp = F.avg_pool1d(attention[:, None], self.kernel, stride=1, padding=self.kernel // 2).squeeze(1)  # [Hkv, P]
        imp = imp + rescaled(layer.values[:, :past].float().norm(dim=-1), imp)
        k_hat = F.normalize(layer.keys.float(), dim=-1)  # [Hkv, L, D]
        mean = k_hat.mean(1, keepdim=True)  # [Hkv, 1, D]
        div = rescaled(-(k_hat[:, :past] * mean).sum(-1), imp)
        r = (length * mean.square().sum(-1) - 1) / (length - 1)  # [Hkv, 1]
        return (1 - r) * imp + r * div


def rescaled(scores: Tensor, like: Tensor) -> Tensor:
    """Scores (H, P) from 0 to 1, then times what makes their mean that of `like`; all alike become that mean."""
    lowest, highest = scores.aminmax(dim=-1, keepdim=True)
    unit = (scores - lowest) / (highest - lowest)
    unit = unit.nan_to_num(1.0)  # 0 / 0
    return unit * (like.mean(-1, keepdim=True) / unit.mean(-1, keepdim=True))
