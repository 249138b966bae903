"""LOOK-M itself: column sums, text prior, merging (arXiv 2406.18139, Section 3)."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from lookm.eviction import heavy_hitters_key, prior_positions, with_recent
from lookm.layer import Layer
from lookm.merging import Kept
from lookm.prompt import on_host
from lookm.statistics import Needs
from lookm.strategy import Strategy

TextPrior = Literal["off", "union", "strict"]
Merge = Literal["none", "averaged", "pivotal", "weighted"]

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

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(sums=True)

    def selection_key(self, length: int) -> Hashable:
        return heavy_hitters_key(*self.window_sizes(length), self.text_prior, self._sinks())

    def promised_tokens(self, is_image: Tensor) -> int:
        length = is_image.numel()
        if self._keeps_all(is_image):
            return length
        recent, _ = self.window_sizes(length)
        return min(length, recent + self._slots(is_image))

    def keep(self, layer: Layer) -> Tensor:
        recent, _ = self.window_sizes(layer.length)
        past = layer.length - recent
        if self.text_prior != "off":
            first = ~layer.is_image[:past]
        else:
            first = torch.arange(past, device=layer.is_image.device) < self._sinks()
        important = prior_positions(layer.column_sums()[:, :past], first, self._slots(layer.is_image))
        return with_recent(important, layer.length, recent)

    def broken_promises(self, kept: Tensor, is_image: Tensor) -> list[tuple[Tensor, str]]:
        promises = super().broken_promises(kept, is_image)
        if self.text_prior == "union":
            kept_text = (~is_image)[kept.clamp(0, is_image.numel() - 1)].sum(1)
            promises.append(((kept_text != (~is_image).sum()).any(), "evicted text, which the union text prior keeps"))
        return promises

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
