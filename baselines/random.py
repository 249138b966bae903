"""Random tokens: what every comparison needs. No attention is read."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lookm.layer import Layer
from lookm.ranking import ScoreStrategy


@dataclass(frozen=True, kw_only=True)
class Random(ScoreStrategy):
    """Keep a small recent window and random tokens, drawn for each layer and head.

    Attributes:
        seed: of the draw, which is the same for every prompt of one length.
    """

    recent: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("seed", self.seed)

    def scores(self, layer: Layer) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + layer.index)
        return torch.rand(layer.kv_heads, layer.length, generator=generator).to(layer.keys.device)
