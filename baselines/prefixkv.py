"""PrefixKV (arXiv 2412.03409): every layer keeps the prefix of its sorted tokens that holds one share of attention.

The authors find that share offline, as a mean over samples; here it is each prompt's own. One choice for all heads.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lookm.division import DividedStrategy
from lookm.layer import Layer
from lookm.statistics import Needs


@dataclass(frozen=True, kw_only=True)
class PrefixKV(DividedStrategy):
    """Score the head-mean column sums; one threshold on their cumulative share gives every layer its number of tokens.

    Attributes:
        sinks: first tokens that are always kept, the last one beside them.
    """

    sinks: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("sinks", self.sinks)

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(sums=True)

    def promised_recent(self, length: int) -> int:
        return min(1, sum(self.window_sizes(length)))

    def read(self, layer: Layer) -> tuple[Tensor, Tensor]:
        sums = layer.sums.mean(0)  # [L]
        ordered = sums.sort(descending=True).values
        before = (ordered.cumsum(0) - ordered) / ordered.sum()  # of each rank, the share of all higher ones
        sinks = torch.arange(layer.length, device=sums.device) < self.sinks
        return before, sums.masked_fill(sinks, torch.inf)[None]

    def divide(self, measures: list[Any], layer: Layer) -> list[int]:
        budget = sum(self.window_sizes(layer.length))
        before = torch.stack(measures)  # [n_layers, L]
        before[:, : min(budget, self.sinks + 1)] = -1.0
        chosen = before.flatten().argsort(stable=True)[: layer.n_layers * budget]  # those below the threshold that fits
        counts: list[int] = torch.bincount(chosen // layer.length, minlength=layer.n_layers).tolist()
        return counts
