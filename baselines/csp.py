"""Cross-Self Pruning, CSP (arXiv 2412.04652): attention within a modality and across modalities choose apart.

The authors tune the share of cross-modality tokens for each dataset; here it is a field with one default for all.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lookm.eviction import top_positions, with_recent
from lookm.layer import Layer
from lookm.prompt import on_host
from lookm.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Csp(Strategy):
    """Keep the last M tokens, N(1 − c) by attention from the same modality and N · c by attention from the other.

    The last M queries attend (the last one where M is 0) with softmax_n(x) = eˣ / (n + Σ eˣ). Tokens that both would
    choose are the same modality's; where a prompt has only one kind of pair, that kind chooses all.

    Attributes:
        cross: c.
        n: added to the softmax's denominator; 0 is the plain softmax.
    """

    heads_apart: ClassVar[bool] = True
    compresses_text_only: ClassVar[bool] = True

    cross: float = 0.5
    n: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_share("cross", self.cross)
        self._check_share("n", self.n)

    def keep(self, layer: Layer) -> Tensor:
        recent, important = self.window_sizes(layer.length)
        past = layer.length - recent
        window = max(1, recent)
        same, cross = layer.shared((type(self), window, self.n), lambda: self._sums(layer, window))
        n_cross = self._cross_slots(on_host(layer.is_image), past, window, important)
        first = top_positions(same[:, :past], important - n_cross)
        second = top_positions(cross[:, :past].scatter(1, first, -torch.inf), n_cross)
        return with_recent(torch.cat([first, second], dim=1), layer.length, recent)

    def _sums(self, layer: Layer, window: int) -> tuple[Tensor, Tensor]:
        """Σ softmax_n over the last queries of the key's own modality and of the other, each (Hkv, L) float32."""
        first = layer.length - window
        sums = layer.queries.new_zeros(2, layer.queries.shape[0], layer.length, dtype=torch.float32)
        for start, logits in layer.logits(first):
            end, seen = start + logits.shape[1], logits.shape[2]
            largest = logits.amax(-1, keepdim=True).clamp_min(0)  # of n = e⁰ · n, too
            weights = (logits - largest).exp_()
            weights /= self.n * (-largest).exp() + weights.sum(-1, keepdim=True)  # [Hq, rows, seen]
            for number, differs in enumerate((False, True)):
                pairs = (layer.is_image[start:end, None] != layer.is_image[None, :seen]) == differs  # [rows, seen]
                sums[number, :, :seen] += (weights * pairs).sum(1)
        return layer.per_kv_head(sums[0]), layer.per_kv_head(sums[1])

    def _cross_slots(self, is_image: Tensor, past: int, window: int, important: int) -> int:
        """N · c, or all or nothing where only one kind of pair exists."""
        keys, queries = set(is_image[:past].tolist()), set(is_image[-window:].tolist())
        if keys == queries and len(keys) == 1:
            return 0
        if not keys & queries:
            return important
        return int(self.cross * important)
