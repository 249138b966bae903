"""SnapKV (arXiv 2404.14469): the last queries of the prompt vote for what stays, neighbours included."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from lookm.eviction import top_positions, with_recent
from lookm.importance import Needs, Statistics
from lookm.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class SnapKV(Strategy):
    """Keep an observation window and, of the tokens before it, those that it attends to most, after average pooling.

    The paper's form keeps M + N tokens, the window among them: w = `window`, or M + N if that is smaller. LOOK-M's
    release observes with the last M queries instead and adds N; where M is 0, the last query observes.

    Attributes:
        window: w, queries in the observation window (paper semantics).
        kernel: width of the pooling over positions, odd.
    """

    compresses_text_only: ClassVar[bool] = True

    window: int = 32
    kernel: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("window", self.window)
        self._check_positive("kernel", self.kernel, odd=True)

    def needs(self, length: int) -> Needs:
        return Needs(windows=frozenset({self._observed(length)}))

    def promised_recent(self, length: int) -> int:
        return self._window_and_slots(length)[0]

    def keep(self, statistics: Statistics, is_image: Tensor) -> Tensor:
        length = statistics.length
        recent, important = self._window_and_slots(length)
        votes = statistics.per_kv_head(statistics.windows[self._observed(length)])[:, : length - recent]
        pooled = F.avg_pool1d(votes.unsqueeze(1), self.kernel, stride=1, padding=self.kernel // 2).squeeze(1)
        return with_recent(top_positions(pooled, important), length, recent)

    def _window_and_slots(self, length: int) -> tuple[int, int]:
        recent, important = self.window_sizes(length)
        if self.semantics == "release":
            return recent, important
        window = min(self.window, recent + important)
        return window, recent + important - window

    def _observed(self, length: int) -> int:
        return max(1, self._window_and_slots(length)[0])
