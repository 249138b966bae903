"""StreamingLLM (arXiv 2309.17453): attention sinks and the recent window. No attention is read.

The paper counts positions inside the cache, so that no key is further away than the cache is long. New tokens go on at
position L here; the same distances come from moving the sinks up to the recent window (`positions="renumbered"`).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from lookm.eviction import with_recent
from lookm.layer import Layer
from lookm.merging import Kept
from lookm.strategy import Strategy

Positions = Literal["original", "renumbered"]


@dataclass(frozen=True, kw_only=True)
class Streaming(Strategy):
    """Keep the first `sinks` tokens and the last of M + N in all; the last token even where sinks fill the budget.

    Attributes:
        sinks: first tokens that are kept.
        positions: "original", or "renumbered": the sinks' keys are rotated to the positions just before the window.
    """

    compresses_text_only: ClassVar[bool] = True

    sinks: int = 4
    positions: Positions = "original"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("sinks", self.sinks)
        self._check_choice("positions", get_args(Positions))

    def promised_recent(self, length: int) -> int:
        budget = sum(self.window_sizes(length))
        return min(budget, max(1, budget - self.sinks))

    def keep(self, layer: Layer) -> Tensor:
        recent = self.promised_recent(layer.length)
        first = torch.arange(sum(self.window_sizes(layer.length)) - recent, device=layer.keys.device)
        return with_recent(first.expand(layer.kv_heads, -1), layer.length, recent)

    def merge_into(self, kept: Kept) -> tuple[Tensor, Tensor]:
        layer, recent = kept.layer, self.promised_recent(kept.layer.length)
        sinks = kept.positions.shape[1] - recent
        if self.positions == "original" or not sinks:
            return kept.keys, kept.values
        source = torch.arange(sinks, device=layer.keys.device)
        moved = layer.rotary().moved(kept.keys[:, :sinks], source, source + layer.length - recent - sinks)
        return torch.cat([moved.to(kept.keys.dtype), kept.keys[:, sinks:]], dim=1), kept.values
