"""BACON (arXiv 2606.14782): window attention, and what the last query looks at more than its window does.

The window's attention is a mean over its queries here, so that it is of the last query's scale. The window of 32 fits
the budget, as SnapKV's.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from lookm.eviction import top_positions
from lookm.layer import Layer
from lookm.ranking import RankedStrategy, fitting_window
from lookm.statistics import Needs


@dataclass(frozen=True, kw_only=True)
class Bacon(RankedStrategy):
    """Score s = b + λV before an observation window of w queries, which stays.

    b and q are the pooled attention of the window and of the last query, E = ReLU(q − b),
    V = E + avgpool₅(E) + mean of E over the previous layers, and with the 2K highest of b and of V (K the slots)
    λ = scale · σ(b_top) / σ(V_top) · clip(mean V_top / mean b_top, 0, 1).

    Attributes:
        window: w; None: min(32, max(1, (M + N) // 4)).
        kernel: width of the poolings over positions, odd.
        layers: how many previous layers V reads.
        scale: the factor 0.5 of λ.
    """

    compresses_text_only: ClassVar[bool] = True

    window: int | None = None
    kernel: int = 5
    layers: int = 4
    scale: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None:
            self._check_positive("window", self.window)
        self._check_positive("kernel", self.kernel, odd=True)
        self._check_count("layers", self.layers)
        self._check_share("scale", self.scale)

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(windows=frozenset({1, max(1, self.promised_recent(is_image.numel()))}))

    def promised_recent(self, length: int) -> int:
        return fitting_window(self.window, sum(self.window_sizes(length)))

    def selection_key(self, length: int) -> Hashable:
        window, budget = self.promised_recent(length), sum(self.window_sizes(length))
        return type(self), window, budget, self.kernel, self.layers, self.scale, self.prior, self.semantics

    def scores(self, layer: Layer) -> Tensor:
        past = layer.length - self.promised_recent(layer.length)
        w = max(1, layer.length - past)
        b = self._pooled(layer.per_kv_head(layer.window(w))[:, :past] / w)  # [Hkv, P]
        q = self._pooled(layer.per_kv_head(layer.window(1))[:, :past])
        e = (q - b).relu()
        key = type(self), past, self.kernel
        layer.remember(key, e)
        v = e + self._pooled(e)
        earlier = layer.earlier(key, self.layers)
        if earlier:
            v = v + torch.stack(earlier).mean(0)
        top = min(past, 2 * self.slots(layer.is_image))
        if not top:
            return b
        b_top, v_top = (x.gather(1, top_positions(x, top)) for x in (b, v))  # [Hkv, 2K]
        spread = b_top.std(-1, correction=0) / v_top.std(-1, correction=0)
        ratio = (v_top.mean(-1) / b_top.mean(-1)).clamp(0, 1)
        lam = (self.scale * spread * ratio).nan_to_num(0.0, posinf=0.0)  # V is the same everywhere: it ranks nothing
        return b + lam[:, None] * v

    def _pooled(self, scores: Tensor) -> Tensor:
        return F.avg_pool1d(scores[:, None], self.kernel, stride=1, padding=self.kernel // 2).squeeze(1)
