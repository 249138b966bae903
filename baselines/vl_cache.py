"""VL-Cache (arXiv 2410.23317): the queries behind the last image decide, and sparse layers keep less."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lookm.division import DividedStrategy
from lookm.layer import Layer
from lookm.prompt import on_host
from lookm.statistics import Needs


@dataclass(frozen=True, kw_only=True)
class VLCache(DividedStrategy):
    """Score Σ_{q ∈ P} A[q, j] over the queries P behind the last image; a layer's share is the density of A on P.

    An entry counts as dense if it is at least p · max_j A[q, j]. A share of the budget is recent in every layer.

    Attributes:
        threshold: p.
        recent_share: of the budget, the recent tokens.
    """

    threshold: float = 0.01
    recent_share: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_share("threshold", self.threshold)
        self._check_share("recent_share", self.recent_share)

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(windows=frozenset({self._observed(is_image)}))

    def promised_recent(self, length: int) -> int:
        return int(self.recent_share * sum(self.window_sizes(length)))

    def read(self, layer: Layer) -> tuple[Tensor, Tensor]:
        return self._density(layer), layer.per_kv_head(layer.window(self._observed(layer.is_image)))

    def _density(self, layer: Layer) -> Tensor:
        """The density of A on P, all heads together."""
        first = layer.length - self._observed(layer.is_image)
        dense, seen = torch.zeros(2, device=layer.keys.device)
        for _, logits in layer.logits(first):
            ratio = (logits - logits.amax(-1, keepdim=True)).exp()  # A[q, j] / max_j A[q, j]
            visible = logits > -torch.inf
            dense, seen = dense + ((ratio >= self.threshold) & visible).sum(), seen + visible.sum()
        return dense / seen

    def _observed(self, is_image: Tensor) -> int:
        """|P|, at least the last query; all queries of a prompt without images."""
        images = on_host(is_image).nonzero()
        return max(1, is_image.numel() - (int(images[-1]) + 1 if len(images) else 0))
