"""SnapKV (arXiv 2404.14469): the last queries of the prompt vote for what stays, neighbours included."""

import warnings
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from lookm.eviction import top_positions, with_recent
from lookm.layer import Layer
from lookm.ranking import fitting_window
from lookm.statistics import Needs
from lookm.strategy import Choice, Strategy


@dataclass(frozen=True, kw_only=True)
class SnapKV(Strategy):
    """Keep an observation window and, of the tokens before it, those that it attends to most, after average pooling.

    The paper's form keeps M + N tokens, the window among them. Its authors' w = 32 is made for prompts of thousands of
    tokens and eats the budget of short ones, so that w = min(32, max(1, (M + N) // 4)) here, unless `window` fixes it;
    never more than M + N. LOOK-M's release observes with the last M queries instead and adds N; where M is 0, the last
    query observes.

    Attributes:
        window: w, queries in the observation window (paper semantics), or None for the default above.
        kernel: width of the pooling over positions, odd.
    """

    heads_apart: ClassVar[bool] = True
    compresses_again: ClassVar[bool] = True

    compresses_text_only: ClassVar[bool] = True

    window: int | None = None
    kernel: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window is not None:
            self._check_positive("window", self.window)
        self._check_positive("kernel", self.kernel, odd=True)

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(windows=frozenset({self._observed(is_image.numel())}))

    def promised_recent(self, length: int) -> int:
        return self._window_and_slots(length)[0]

    def keep(self, layer: Layer) -> Choice:
        recent = self.promised_recent(layer.length)
        best = top_positions(self.pooled_votes(layer), self.layer_tokens(layer) - recent)
        return with_recent(best, layer.length, recent)

    def pooled_votes(self, layer: Layer) -> Tensor:
        """The pooled sums of the window's attention to the tokens before the recent ones, (Hkv, L − recent) float32."""
        past = layer.length - self.promised_recent(layer.length)
        votes = layer.per_kv_head(layer.window(self._observed(layer.length)))[:, :past]
        return F.avg_pool1d(votes.unsqueeze(1), self.kernel, stride=1, padding=self.kernel // 2).squeeze(1)

    def _window_and_slots(self, length: int) -> tuple[int, int]:
        recent, important = self.window_sizes(length)
        if self.semantics == "release":
            return recent, important
        budget = recent + important
        window = fitting_window(self.window, budget)
        if self.window and 2 * window > budget > 0:
            _warn_of_narrow_budget(self.name, self.window, self.alpha1, self.alpha2)
        return window, budget - window

    def _observed(self, length: int) -> int:
        return max(1, self._window_and_slots(length)[0])


@cache
def _warn_of_narrow_budget(name: str, window: int, alpha1: float, alpha2: float) -> None:
    """Warns once a process for each combination."""
    warnings.warn(
        f"{name}: window={window} takes more than half of the budget of a prompt at alpha1={alpha1}, alpha2={alpha2}, "
        "so that it keeps mostly recent tokens; leave window out for one that fits the budget",
        stacklevel=2,
    )
