"""MadaKV's choice inside a layer (arXiv 2506.15724): each head divides its tokens between text and images by itself.

Its budgets for layers are `madakv`'s; here every layer keeps the same number of tokens. The paper's window is not
known: 8 queries, as in `window`.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lookm.eviction import top_of_groups, with_recent
from lookm.layer import Layer
from lookm.statistics import Needs
from lookm.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class MadaKVHeads(Strategy):
    """Keep a small recent window; the other slots of each head go to images and text as φ_v : φ_t = Σ_I W : Σ_T W.

    W = W_j(w) before the recent window; within each modality the highest W stay.

    Attributes:
        window: w.
        recent: last tokens that are always kept.
    """

    heads_apart: ClassVar[bool] = True
    compresses_text_only: ClassVar[bool] = True

    window: int = 8
    recent: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("window", self.window)
        self._check_count("recent", self.recent)

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(windows=frozenset({self.window}))

    def promised_recent(self, length: int) -> int:
        return min(self.recent, sum(self.window_sizes(length)))

    def keep(self, layer: Layer) -> Tensor:
        recent = self.promised_recent(layer.length)
        past = layer.length - recent
        slots = self.layer_tokens(layer) - recent
        w_j = layer.per_kv_head(layer.window(self.window))[:, :past]  # [Hkv, P]
        image = layer.is_image[:past]
        images = image.sum()
        phi_v = (w_j * image).sum(1) / w_j.sum(1)  # [Hkv]
        n_v = (slots * phi_v).round().long().nan_to_num(0)
        n_v = n_v.maximum(slots - (past - images)).minimum(images).clamp(0, slots)
        return with_recent(top_of_groups(w_j, image, n_v, slots), layer.length, recent)
