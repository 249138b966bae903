"""MEDA (arXiv 2502.17599): layers whose attention between text and images is spread out keep more, and merge the rest.

Entropies are means over heads and queries, so that their softmax does not depend on the prompt's length, which the
paper leaves open. What the released code's bounds take from a layer goes to the others: the budget stays what it is.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lookm.budgets import apportion
from lookm.division import DividedStrategy
from lookm.eviction import prior_positions, with_recent
from lookm.layer import Layer
from lookm.merging import Kept
from lookm.method import LookM
from lookm.prompt import on_host
from lookm.statistics import Needs

Merge = Literal["none", "averaged", "pivotal"]
RELEASE_LEAST = 0.01
"""The smallest share of a prompt that the released code leaves a layer."""


@dataclass(frozen=True, kw_only=True)
class Meda(DividedStrategy):
    """Layer l gets B_l = softmax(E)_l · n · (M + N) tokens: a recent share, and by column sums text before images.

    E_l is the entropy −Σ A log A over pairs of text and image (paper), or over all pairs (release). The released code
    also widens the recent window to the number of text tokens, so that layers may hold more than the budget says.

    Attributes:
        recent_share: of B_l, the recent tokens; None is 3/4 (paper) or 1/2 (release).
        merge: as LOOK-M's; None is averaged (paper) or pivotal (release).
    """

    recent_share: float | None = None
    merge: Merge | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recent_share is not None:
            self._check_share("recent_share", self.recent_share)
        if self.merge is not None:
            self._check_choice("merge", get_args(Merge))

    @property
    def fixed_size(self) -> bool:
        return self.semantics == "paper"

    def promised_tokens(self, is_image: Tensor) -> int:
        return super().promised_tokens(is_image) if self.fixed_size else is_image.numel()

    def promised_recent(self, length: int) -> int:
        return 0  # each layer has its own

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(sums=True)

    def read(self, layer: Layer) -> tuple[Tensor, Tensor]:
        return self._entropy(layer), layer.column_sums()

    def divide(self, measures: list[Any], layer: Layer) -> list[int]:
        total = layer.n_layers * sum(self.window_sizes(layer.length))
        least = max(1, int(RELEASE_LEAST * layer.length)) if self.semantics == "release" else 1
        weights = torch.stack(measures).softmax(0).tolist()
        return apportion(weights, total, min(least, total // layer.n_layers), layer.length)

    def layer_tokens(self, layer: Layer) -> int:
        return sum(self._window_and_slots(layer))

    def keep(self, layer: Layer) -> Tensor:
        recent, slots = self._window_and_slots(layer)
        past = layer.length - recent
        rank = layer.is_image[:past].to(torch.uint8)
        return with_recent(prior_positions(self.seen_scores(layer)[:, :past], rank, slots), layer.length, recent)

    def merge_into(self, kept: Kept) -> tuple[Tensor, Tensor]:
        merge = self.merge or ("averaged" if self.semantics == "paper" else "pivotal")
        return LookM(name=self.name, merge=merge).merge_into(kept)

    def _window_and_slots(self, layer: Layer) -> tuple[int, int]:
        """Recent tokens of the layer and the others that stay, of its B_l."""
        budget, length = super().layer_tokens(layer), layer.length
        share = self.recent_share
        if share is None:
            share = 0.75 if self.semantics == "paper" else 0.5
        recent = int(share * budget)
        slots = budget - recent
        if self.semantics == "release":
            recent = max(recent, int((~on_host(layer.is_image)).sum()))
        return recent, min(slots, length - recent)

    def _entropy(self, layer: Layer) -> Tensor:
        """E_l, the mean of heads and queries."""
        total = torch.zeros((), device=layer.keys.device)
        kinds = torch.stack([layer.is_image, ~layer.is_image], dim=1).float()  # [L, 2]
        for start, logits in layer.logits():
            a = layer.softmax(logits)
            parts = a.clamp_min(torch.finfo(a.dtype).tiny).log_().mul_(a)  # A log A, [Hq, rows, keys]
            if self.semantics == "paper":
                queries = kinds[start : start + logits.shape[1]].flip(1)  # of an image's query the pairs with text
                parts = parts @ kinds[: logits.shape[2]] * queries  # [Hq, rows, 2]
            total -= parts.sum()
        return total / (layer.queries.shape[0] * layer.length)
