"""L2 norm of the keys (arXiv 2406.11430): short keys receive much attention. No attention is read.

The paper leaves its first two layers whole; here, as in kvpress, all layers keep the same number of tokens.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lookm.layer import Layer
from lookm.ranking import ScoreStrategy


@dataclass(frozen=True, kw_only=True)
class KNorm(ScoreStrategy):
    """Keep the tokens of the shortest keys: score −‖k_j‖."""

    heads_apart: ClassVar[bool] = True
    compresses_again: ClassVar[bool] = True

    def scores(self, layer: Layer) -> Tensor:
        return -layer.keys.float().norm(dim=-1)
