"""ThinK (arXiv 2407.21018): keys with fewer channels, those that the last queries read least.

score[h, d] = mean over the last queries of q_d² · mean over the keys of k_d², the order of the paper's ‖q_d k_dᵀ‖_F
(Eq. 4). The channels of the lowest scores are taken out of memory; attention then finds zeros there.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lookm.layer import LAST_QUERIES, Layer
from lookm.storage.formed import FormedStorage
from lookm.storage.forms import Form, Whole
from lookm.storage.rows import compact
from lookm.storage.sparse import index_bytes, narrow


@dataclass(frozen=True)
class FewerChannels(Form):
    """States (H, n, D) of which some channels are held, the others are 0.

    Attributes:
        held: (H, n, C).
        channels: which they are, (H, C), the narrowest integers that reach.
        size: D.
    """

    held: Tensor
    channels: Tensor
    size: int

    def restored(self) -> Tensor:
        index = self.channels.long()[:, None].expand_as(self.held)
        return self.held.new_zeros(*self.held.shape[:2], self.size).scatter_(2, index, self.held)


@dataclass(frozen=True, kw_only=True)
class Think(FormedStorage):
    """Keys without the int(ratio · D) channels of each head that matter least; the last tokens keep all, values too.

    Attributes:
        ratio: share of the key channels that go.
        window: how many of the prompt's last queries are read.
    """

    longest_residual: ClassVar[int] = 32

    ratio: float = 0.4
    window: int = LAST_QUERIES

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_share("ratio", self.ratio)
        self._check_count("window", self.window, least=1, most=LAST_QUERIES)

    def key_form(self, keys: Tensor, first: int, layer: Layer, heads: slice) -> Form:
        q = layer.per_kv_head(layer.last_queries(self.window).float().square().mean(1))[heads]  # [H, D]
        scores = q * keys.float().square().mean(1)
        size = keys.shape[2]
        order = scores.argsort(dim=-1, descending=True, stable=True)
        channels = order[:, : size - int(self.ratio * size)].sort(dim=-1).values
        held = keys[:, :first].gather(2, channels[:, None].expand(-1, first, -1))
        return FewerChannels(held, narrow(channels, size), size)

    def value_form(self, values: Tensor) -> Form:
        return Whole(compact(values))

    def form_bytes(self, tokens: int, size: int, itemsize: int) -> int:
        channels = size - int(self.ratio * size)
        return tokens * (channels + size) * itemsize + channels * index_bytes(size)
