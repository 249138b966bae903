"""LagKV (arXiv 2504.04704): how far keys and values spread beyond those of the next tokens. No attention is read.

The prompt behind its sinks is cut into partitions of one lag; the last whole one and what follows it have no next
partition and stay. Paper and kvpress use a lag of 128 tokens, made for long prompts: the part that stays then eats the
budget of a short one, so that the lag fits the budget here unless a field fixes it.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lookm.layer import Layer
from lookm.ranking import ScoreStrategy


@dataclass(frozen=True, kw_only=True)
class LagKV(ScoreStrategy):
    """Score, in each partition, the mean rank of keys and values by softmax_j(std_d((x − min) / (max − min))).

    Minimum and maximum are those of each channel d in the next partition; a channel that does not vary there counts 0.
    Ranks run from 0 to (lag − 1) / lag.

    Attributes:
        lag: tokens of a partition; None: min(128, max(8, (M + N) // 4)).
    """

    heads_apart: ClassVar[bool] = True

    sinks: int = 4
    lag: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lag is not None:
            self._check_count("lag", self.lag, least=2)

    def score_key(self, length: int) -> Hashable:
        return *super().score_key(length), self.sinks, self._lag(length)  # type: ignore[misc]

    def scores(self, layer: Layer) -> Tensor:
        length, lag = layer.length, self._lag(layer.length)
        partitions = max(0, length - self.sinks) // lag
        scored = max(0, partitions - 1) * lag
        later = torch.arange(length, dtype=torch.float32, device=layer.keys.device)
        scores = (1 + later).repeat(layer.kv_heads, 1)  # what has no next partition: the latest first
        if scored:
            inner = slice(self.sinks, self.sinks + partitions * lag)
            spread = [self._spread(states[:, inner].float(), lag) for states in (layer.keys, layer.values)]
            mean = (spread[0] + spread[1]) / 2  # [Hkv, partitions − 1, lag]
            ranks = mean.argsort(dim=-1, stable=True).argsort(dim=-1, stable=True) / lag
            scores[:, self.sinks : self.sinks + scored] = ranks.flatten(1)
        return scores

    def _spread(self, states: Tensor, lag: int) -> Tensor:
        """softmax_j std_d of (x − min) / (max − min): (Hkv, partitions · lag, D) → (Hkv, partitions − 1, lag)."""
        parts = states.unflatten(1, (-1, lag))  # [Hkv, partitions, lag, D]
        lowest, highest = parts[:, 1:].amin(2, keepdim=True), parts[:, 1:].amax(2, keepdim=True)  # aminmax is slow
        scaled = (parts[:, :-1] - lowest) / (highest - lowest)
        scaled = scaled.masked_fill(highest == lowest, 0.0)
        centred = scaled - scaled.mean(-1, keepdim=True)
        std = centred.norm(dim=-1) / max(1, scaled.shape[-1] - 1) ** 0.5  # as std(-1), which is slow
        return std.softmax(-1)

    def _lag(self, length: int) -> int:
        return self.lag or min(128, max(8, sum(self.window_sizes(length)) // 4))
