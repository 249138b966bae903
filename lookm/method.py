"""LOOK-M itself: column sums, text prior, merging (arXiv 2406.18139, Section 3)."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor

from lookm.eviction import heavy_hitters_key
from lookm.layer import Layer
from lookm.merging import Kept
from lookm.ranking import RankedStrategy, TextPrior
from lookm.statistics import Needs

Merge = Literal["none", "averaged", "pivotal", "weighted"]

RELEASE_SINKS = 4
"""First positions that the released code always keeps when it merges without the text prior."""


@dataclass(frozen=True, kw_only=True)
class LookM(RankedStrategy):
    """Keep the recent window and the highest column sums, text first, and merge the rest into them.

    Attributes:
        text_prior: as of `RankedStrategy`, whose window is M here (Eqs. 5 to 8).
        merge: "none", "averaged" (Eq. 10), "pivotal" (Eq. 11) or "weighted" (Eq. 12).
    """

    heads_apart: ClassVar[bool] = True
    compresses_again: ClassVar[bool] = True

    text_prior: TextPrior = "union"
    merge: Merge = "pivotal"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("merge", get_args(Merge))

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(sums=True)

    def selection_key(self, length: int) -> Hashable:
        return heavy_hitters_key(*self.window_sizes(length), self.prior, self.sinks_of(length))

    def scores(self, layer: Layer) -> Tensor:
        return layer.column_sums()

    def sinks_of(self, length: int) -> int:
        released = self.semantics == "release" and self.text_prior == "off" and self.merge != "none"
        return RELEASE_SINKS if released else 0

    def merge_into(self, kept: Kept) -> tuple[Tensor, Tensor]:
        if self.merge == "none" or not kept.can_merge:
            return kept.keys, kept.values
        released = self.semantics == "release" and self.merge != "pivotal"
        sums = kept.sums(weighted=self.merge == "weighted", released=released)
        return self._merged(kept.keys, sums.keys, sums.n), self._merged(kept.values, sums.values, sums.n)

    def _merged(self, states: Tensor, total: Tensor, n: Tensor) -> Tensor:
        """Eqs. 10–12 from x_c (H, K, D), Σ_e x_e (weighted: Σ_e cos(k_e, k_c) · x_e) and n (H, K, 1)."""
        x_c = states.float()
        if self.merge == "pivotal":  # Σ_e (x_e + x_c) / 2 = n/2 · x_c + Σ_e x_e / 2
            x_c, total = x_c * (1 + n / 2), total / 2
        return ((x_c + total) / (n + 1)).to(states.dtype)
