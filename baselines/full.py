"""The full cache: nothing is evicted; every comparison is made against it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lookm.layer import Layer
from lookm.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Full(Strategy):
    """Keep the whole prompt; α1, α2 and a budget mean nothing here."""

    @property
    def nominal_budget(self) -> float:
        return 1.0

    def promised_tokens(self, is_image: Tensor) -> int:
        return is_image.numel()

    def keep(self, layer: Layer) -> Tensor:
        return torch.arange(layer.length, device=layer.is_image.device).expand(layer.kv_heads, -1)
