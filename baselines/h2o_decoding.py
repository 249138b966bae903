"""H2O as its authors run it (arXiv 2306.14048, Section 4): heavy hitters are evicted while decoding, too.

Each new query's attention is added to the sums that the prompt left, and the token of the lowest sum goes. A group's
query heads are averaged, where the authors' models have as many key/value heads.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from baselines.h2o import H2O
from lookm.decoding import DecodingStrategy
from lookm.held import Held
from lookm.layer import Layer


@dataclass(frozen=True, kw_only=True)
class H2ODecoding(DecodingStrategy, H2O):
    """As `h2o`; then, with every new token, the one of the lowest attention sum goes, but none of the last M."""

    compresses_text_only: ClassVar[bool] = True
    reads_attention: ClassVar[bool] = True

    def notes(self, layer: Layer, positions: Tensor) -> dict[str, Tensor]:
        return {"sums": layer.column_sums().gather(1, positions)}

    def step(self, held: Held) -> Tensor:
        sums = held.note("sums").add_(held.weights)
        recent = torch.tensor([self.window_sizes(length)[0] for length in held.lengths], device=sums.device)
        return held.lowest(sums, held.positions <= held.newest - recent[:, None, None])
