"""Strategies that keep the highest scores: what they share is how a choice is made of scores, prior and budget."""

from abc import abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass, fields
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from lookm.eviction import prior_positions, top_positions, with_recent
from lookm.layer import Layer
from lookm.prompt import on_host
from lookm.strategy import Strategy

TextPrior = Literal["off", "union", "strict"]


@dataclass(frozen=True, kw_only=True)
class RankedStrategy(Strategy):
    """Keep the last tokens and, of those before, the ones with the highest scores; first tokens and text first.

    A subclass answers `scores`, and `promised_recent` where its recent window is not M.

    Attributes:
        text_prior: "off"; "union" keeps all text, whatever the budget (LOOK-M, Eq. 8), so that the realised size is
            `promised_recent` + max(the other slots, text tokens and sinks before the window); "strict" keeps M + N,
            text before images, and so does "union" under a `budget`, which nothing exceeds.
    """

    text_prior: TextPrior = "off"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_choice("text_prior", get_args(TextPrior))

    @property
    def prior(self) -> TextPrior:
        """The text prior as it acts."""
        return "strict" if self.text_prior == "union" and self.budget is not None else self.text_prior

    @abstractmethod
    def scores(self, layer: Layer) -> Tensor:
        """How important each token is, (Hkv, L) float32; (1, L) is one choice for all heads."""

    def sinks_of(self, length: int) -> int:
        """First tokens that are kept before all others."""
        return 0

    def promised_tokens(self, is_image: Tensor) -> int:
        length = is_image.numel()
        if self._keeps_all(is_image):
            return length
        return min(length, self.promised_recent(length) + self.slots(is_image))

    def slots(self, is_image: Tensor) -> int:
        """Tokens kept before the recent window: the rest of M + N, and under the union prior at least all text."""
        length = is_image.numel()
        recent = self.promised_recent(length)
        slots = sum(self.window_sizes(length)) - recent
        if self.prior != "union":
            return slots
        first = ~on_host(is_image)[: length - recent]
        first[: self.sinks_of(length)] = True
        return max(slots, int(first.sum()))

    def keep(self, layer: Layer) -> Tensor:
        recent = self.promised_recent(layer.length)
        past = layer.length - recent
        scores = self._scores_once(layer)[:, :past].expand(layer.kv_heads, -1)
        slots, sinks = self.slots(layer.is_image), self.sinks_of(layer.length)
        if self.text_prior == "off" and not sinks:
            return with_recent(top_positions(scores, slots), layer.length, recent)
        rank = torch.ones(past, dtype=torch.uint8, device=scores.device)
        if self.text_prior != "off":
            rank += layer.is_image[:past]
        rank[:sinks] = 0
        return with_recent(prior_positions(scores, rank, slots), layer.length, recent)

    def _scores_once(self, layer: Layer) -> Tensor:
        return self.scores(layer)

    def broken_promises(self, kept: Tensor, is_image: Tensor) -> list[tuple[Tensor, str]]:
        if self.prior != "union":
            return []
        kept_text = (~is_image)[kept.clamp(0, is_image.numel() - 1)].sum(1)
        return [((kept_text != (~is_image).sum()).any(), "evicted text, which the union text prior keeps")]


@dataclass(frozen=True, kw_only=True)
class ScoreStrategy(RankedStrategy):
    """Keep M + N tokens in all: the first `sinks`, the last `recent`, and the highest scores of the others.

    Only the sum of α1 and α2 counts. Where the budget is smaller than `sinks` + `recent`, recent tokens come first.

    Attributes:
        sinks: first tokens that are always kept.
        recent: last tokens that are always kept.
    """

    compresses_text_only: ClassVar[bool] = True
    budget_fields: ClassVar[frozenset[str]] = frozenset(
        {"name", "alpha1", "alpha2", "budget", "text_prior", "sinks", "recent"}
    )
    """Fields on which the scores do not depend."""

    sinks: int = 0
    recent: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("sinks", self.sinks)
        self._check_count("recent", self.recent)

    def sinks_of(self, length: int) -> int:
        return self.sinks

    def promised_recent(self, length: int) -> int:
        return min(self.recent, sum(self.window_sizes(length)))

    def score_key(self, length: int) -> Hashable:
        """What the scores depend on besides the prompt: they are made once for all strategies of one key."""
        names = (field.name for field in fields(self) if field.name not in self.budget_fields)
        return type(self), *(getattr(self, name) for name in names)

    def _scores_once(self, layer: Layer) -> Tensor:
        return layer.shared(self.score_key(layer.length), lambda: self.scores(layer))


LONGEST_WINDOW = 32


def fitting_window(window: int | None, budget: int) -> int:
    """Queries of an observation window: `window`, or by default a quarter of the budget of tokens, 1 to 32.

    The windows of 32 of SnapKV and its successors are made for prompts of thousands of tokens and eat the budget of
    short ones. Never more than the budget.
    """
    return min(window or min(LONGEST_WINDOW, max(1, budget // 4)), budget)
