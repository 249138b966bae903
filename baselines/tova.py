"""TOVA (arXiv 2401.06104, Section 4): the last query's attention, averaged over all heads, decides for all of them.

The paper evicts one token at each step of decoding; this is its prefill, cut once at the end of the prompt, as in
kvpress. The last token, which the last query has just read, stays.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lookm.layer import Layer
from lookm.ranking import ScoreStrategy
from lookm.statistics import Needs


@dataclass(frozen=True, kw_only=True)
class Tova(ScoreStrategy):
    """Score the mean over all heads of W_j(1) = A[L − 1, j]: one choice for all heads of a layer."""

    compresses_again: ClassVar[bool] = True

    recent: int = 1

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(windows=frozenset({1}))

    def scores(self, layer: Layer) -> Tensor:
        return layer.window(1).mean(0, keepdim=True)  # [1, L]
