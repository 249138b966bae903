"""AdaKV (arXiv 2407.11550): SnapKV's choice, with a layer's budget divided among its heads by their highest scores."""

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from torch import Tensor

from baselines.snapkv import SnapKV
from lookm.budgets import apportion
from lookm.eviction import counts_across_heads, ragged_top
from lookm.layer import Layer

Safeguard = Literal["floor", "blend"]


@dataclass(frozen=True, kw_only=True)
class AdaKV(SnapKV):
    """Beside the window, the highest pooled scores of all heads of a layer together stay: b = M + N − w on their mean.

    Heads are stored without padding, so that those which keep little really free memory.

    Attributes:
        alpha: what a head keeps at least: that share of M + N, its window included ("floor", as kvpress does it), or of
            b, to which 1 − α of its share in the unbounded choice is added ("blend", the paper's safeguard).
        safeguard: "floor" or "blend".
    """

    ragged_heads: ClassVar[bool] = True

    alpha: float = 0.2
    safeguard: Safeguard = "floor"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_share("alpha", self.alpha)
        self._check_choice("safeguard", get_args(Safeguard))

    def keep(self, layer: Layer) -> list[Tensor]:
        recent, slots = (
            self.promised_recent(layer.length),
            self.layer_tokens(layer) - self.promised_recent(layer.length),
        )
        scores = self.pooled_votes(layer)
        total = layer.kv_heads * slots
        if self.safeguard == "floor":
            least = max(0, int(self.alpha * (slots + recent)) - recent)
            counts = counts_across_heads(scores, total, least)
        else:
            free = counts_across_heads(scores, total, 0)
            counts = apportion(
                [self.alpha * slots + (1 - self.alpha) * n for n in free], total, 0, layer.length - recent
            )
        return ragged_top(scores, counts, layer.length, recent)
