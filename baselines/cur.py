"""CurDKV (arXiv 2509.15038), as in kvpress: leverage scores of keys and values in blocks. No attention is read."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from lookm.layer import Layer
from lookm.ranking import ScoreStrategy


@dataclass(frozen=True, kw_only=True)
class Cur(ScoreStrategy):
    """Score ‖k_j‖² · ‖v_j‖², each divided by its sum over a block of neighbours; the first tokens stay.

    Attributes:
        block: tokens of a block; the last block of a prompt may be shorter.
    """

    heads_apart: ClassVar[bool] = True

    sinks: int = 4
    block: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("block", self.block)

    def scores(self, layer: Layer) -> Tensor:
        return self._leverage(layer.keys) * self._leverage(layer.values)

    def _leverage(self, states: Tensor) -> Tensor:
        """‖x_j‖² over its block's sum: (Hkv, L, D) → (Hkv, L)."""
        length = states.shape[1]
        squares = states.float().square().sum(-1)
        blocks = F.pad(squares, (0, -length % self.block)).unflatten(1, (-1, self.block))  # [Hkv, blocks, block]
        shares = blocks / blocks.sum(-1, keepdim=True).clamp_min(1e-30)
        return shares.flatten(1)[:, :length]
