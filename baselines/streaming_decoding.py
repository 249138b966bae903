"""StreamingLLM as its authors run it (arXiv 2309.17453): the recent window moves on with every new token."""

from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.streaming import Streaming
from lookm.decoding import DecodingStrategy
from lookm.held import Held
from lookm.layer import Layer


@dataclass(frozen=True, kw_only=True)
class StreamingDecoding(DecodingStrategy, Streaming):
    """As `streaming`; then, with every new token, the oldest one behind the sinks goes.

    With `positions="renumbered"` the sinks follow the window.
    """

    def constants(self, layer: Layer, positions: Tensor) -> dict[str, Tensor]:
        if self.positions == "original":
            return {}
        cos, sin = layer.rotary().ahead(2)  # each (2, R)
        return {"angles": torch.atan2(sin[1] * cos[0] - cos[1] * sin[0], cos[1] * cos[0] + sin[1] * sin[0])}

    def step(self, held: Held) -> Tensor:
        return held.oldest(~self._are_sinks(held))

    def turn(self, held: Held) -> tuple[Tensor, Tensor] | None:
        if self.positions == "original":
            return None
        new = [seen - length - 1 for seen, length in zip(held.seen, held.lengths, strict=True)]
        moved = torch.tensor(new, device=held.positions.device)[:, None]
        return self._are_sinks(held), moved * held.constants["angles"]

    def _are_sinks(self, held: Held) -> Tensor:
        n = [kept - self.promised_recent(length) for kept, length in zip(held.kept, held.lengths, strict=True)]
        return held.positions < torch.tensor(n, device=held.positions.device)[:, None, None]
