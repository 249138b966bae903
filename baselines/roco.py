"""RoCo (arXiv 2402.06262): mean attention, with the most variable tokens exempt from eviction.

EasyKV, the authors' code, evicts chunk by chunk; this is its one-shot form at the end of the prompt. LOOK-M's release
divides by L for every key instead of by the queries that see it, which ranks exactly as H2O does.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lookm.eviction import heavy_hitters, top_positions, with_recent
from lookm.layer import Layer
from lookm.statistics import Needs
from lookm.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class RoCo(Strategy):
    """Keep the last M tokens; of the N slots, a share goes to the highest deviation, the rest to the mean.

    Attributes:
        exempt: share of the N slots given to the highest standard deviation (paper semantics).
    """

    heads_apart: ClassVar[bool] = True

    exempt: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_share("exempt", self.exempt)

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(sums=True, squares=self.semantics == "paper")

    def keep(self, layer: Layer) -> Tensor:
        length = layer.length
        recent, important = self.window_sizes(length)
        if self.semantics == "release":
            return heavy_hitters(layer.column_sums(), recent, important)
        past = length - recent
        seen = torch.arange(length, 0, -1, device=layer.is_image.device)  # c_j = L − j queries see key j
        mean = layer.sums / seen
        deviation = (layer.squares / seen - mean.square()).clamp_min(0).sqrt()
        exempted = top_positions(layer.per_kv_head(deviation)[:, :past], int(self.exempt * important))
        means = layer.per_kv_head(mean)[:, :past].scatter(1, exempted, -torch.inf)
        rest = top_positions(means, important - exempted.shape[1])
        return with_recent(torch.cat([exempted, rest], dim=1), length, recent)
