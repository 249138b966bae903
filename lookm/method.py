"""LOOK-M itself: column sums, text prior, merging (arXiv 2406.18139, Section 3)."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lookm.eviction import heavy_hitters_key, prior_positions, with_recent
from lookm.importance import Needs, Statistics
from lookm.merging import KeptSet, Merge
from lookm.prompt import on_host
from lookm.strategy import Strategy

TextPrior = Literal["off", "union", "strict"]

RELEASE_SINKS = 4
"""First positions that the released code always keeps when it merges without the text prior."""


@dataclass(frozen=True, kw_only=True)
class LookM(Strategy):
    """Keep the recent window and the highest column sums, text first, and merge the rest into them.

    Attributes:
        text_prior: "off"; "union" keeps all text, whatever the budget (Eq. 8), so that the realised size is
            M + max(N, text tokens before the window); "strict" keeps M + N, text before images.
        merge: "none", "averaged" (Eq. 10), "pivotal" (Eq. 11) or "weighted" (Eq. 12).
    """

    text_prior: TextPrior = "union"
    merge: Merge = "pivotal"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("text_prior", get_args(TextPrior))
        self._check_choice("merge", get_args(Merge))

    def needs(self, length: int) -> Needs:
        return Needs(sums=True)

    def selection_key(self, length: int) -> Hashable:
        return heavy_hitters_key(*self.window_sizes(length), self.text_prior, self._sinks())

    def promised_tokens(self, is_image: Tensor) -> int:
        length = is_image.numel()
        if self._keeps_all(is_image):
            return length
        recent, _ = self.window_sizes(length)
        return min(length, recent + self._slots(is_image))

    def keep(self, statistics: Statistics, is_image: Tensor) -> Tensor:
        recent, _ = self.window_sizes(statistics.length)
        past = statistics.length - recent
        if self.text_prior != "off":
            first = ~is_image[:past]
        else:
            first = torch.arange(past, device=is_image.device) < self._sinks()
        important = prior_positions(statistics.column_sums()[:, :past], first, self._slots(is_image))
        return with_recent(important, statistics.length, recent)

    def broken_promises(self, kept: Tensor, is_image: Tensor) -> list[tuple[Tensor, str]]:
        promises = super().broken_promises(kept, is_image)
        if self.text_prior == "union":
            kept_text = (~is_image)[kept.clamp(0, is_image.numel() - 1)].sum(1)
            promises.append(((kept_text != (~is_image).sum()).any(), "evicted text, which the union text prior keeps"))
        return promises

    def merge_into(self, kept_set: KeptSet) -> tuple[Tensor, Tensor]:
        return kept_set.merged(self.merge, self.semantics)

    def _sinks(self) -> int:
        """First positions that are kept before all others."""
        released = self.semantics == "release" and self.text_prior == "off" and self.merge != "none"
        return RELEASE_SINKS if released else 0

    def _slots(self, is_image: Tensor) -> int:
        """Important tokens: N, and under the union prior at least all text before the window."""
        recent, important = self.window_sizes(is_image.numel())
        if self.text_prior != "union":
            return important
        return max(important, int((~on_host(is_image)[: is_image.numel() - recent]).sum()))
