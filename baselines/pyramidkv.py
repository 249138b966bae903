"""PyramidKV (arXiv 2406.02069): SnapKV's choice, with budgets that fall from the first layer to the last."""

from dataclasses import dataclass
from typing import ClassVar

from baselines.snapkv import SnapKV
from lookm.budgets import apportion
from lookm.layer import Layer


@dataclass(frozen=True, kw_only=True)
class PyramidKV(SnapKV):
    """Beside the window, layers keep from 2b − b/β tokens (the first) to b/β (the last), in equal steps; b = M + N − w.

    Attributes:
        beta: β.
    """

    divides_budget: ClassVar[bool] = True

    beta: float = 20.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_above_zero("beta", self.beta)

    def layer_tokens(self, layer: Layer) -> int:
        promised, window = self.promised_tokens(layer.is_image), self.promised_recent(layer.length)
        if promised in (0, layer.length):
            return promised
        b, last = promised - window, layer.n_layers - 1
        high, low = 2 * b - b / self.beta, b / self.beta
        shares = [max(0.0, high + (low - high) * index / max(1, last)) for index in range(layer.n_layers)]
        return window + apportion(shares, layer.n_layers * b, 0, layer.length - window)[layer.index]
