"""FastV (arXiv 2403.06764): image tokens that layer K − 1 hardly attends to do not go on into layer K.

The paper ranks by the mean attention of all tokens, the authors' code by the last token's; `queries` says which. Unlike
a strategy that cuts the cache, this makes the prefill cheaper, and every layer before K caches the whole prompt.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from lookm.eviction import top_positions
from lookm.layer import Layer
from lookm.shortening import ShorteningStrategy
from lookm.statistics import Needs

Queries = Literal["last", "all"]


@dataclass(frozen=True, kw_only=True)
class FastV(ShorteningStrategy):
    """Rank image tokens by the attention of layer K − 1, mean over the heads; the share R lowest leave before layer K.

    Tokens keep their positions.

    Attributes:
        layer: K, from 1.
        dropped: R, share of the image tokens that leave.
        queries: whose attention counts, "last" or "all".
    """

    layer: int = 2
    dropped: float = 0.5
    queries: Queries = "last"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("layer", self.layer)
        self._check_share("dropped", self.dropped)
        self._check_choice("queries", get_args(Queries))

    @property
    def first_short_layer(self) -> int:
        return self.layer

    def going_on(self, layer: Layer) -> Tensor:
        needs = Needs(windows=frozenset({1})) if self.queries == "last" else Needs(sums=True)
        statistics = layer.statistics_of(needs)
        received = statistics.sums if self.queries == "all" else statistics.windows[1]  # [Hq, L]
        assert received is not None
        scores = received.mean(0).masked_fill(~layer.is_image, -1.0)  # [L]
        stays = ~layer.is_image
        stays[top_positions(scores[None], round((1 - self.dropped) * int(layer.is_image.sum())))[0]] = True
        stays[-1] = True
        return stays.nonzero()[:, 0]
