"""KeyDiff (arXiv 2504.15364): keys that differ from their mean direction stay. No attention is read."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from lookm.layer import Layer
from lookm.ranking import ScoreStrategy


@dataclass(frozen=True, kw_only=True)
class KeyDiff(ScoreStrategy):
    """Score −cos(k_j, mean_j k̂_j) with k̂ = k / ‖k‖."""

    heads_apart: ClassVar[bool] = True
    compresses_again: ClassVar[bool] = True

    def scores(self, layer: Layer) -> Tensor:
        k_hat = F.normalize(layer.keys.float(), dim=-1)  # [Hkv, L, D]
        anchor = F.normalize(k_hat.mean(1, keepdim=True), dim=-1)  # [Hkv, 1, D]
        return -(k_hat * anchor).sum(-1)
