"""Replay: what any query of the prompt would look at if it were asked again at the prompt's end. docs/method.md.

Windows of last queries know one question, and only if it was asked before the compression. Here every query of the
prompt stands for a question that may come: the rotary embedding moves it to the next position, without another pass of
the model, and there it sees all keys. KVzip (arXiv 2505.23416) has the model repeat its context for the same purpose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lookm.blocks import rows_per_block
from lookm.eviction import counts_across_heads, ragged_top
from lookm.layer import Layer
from lookm.rotary import rotated
from lookm.strategy import Strategy

MOST = 0.99
"""Attention that counts as all: what is beyond it is rounding, and would be divided by almost nothing."""


@dataclass(frozen=True, kw_only=True)
class Replay(Strategy):
    """Score max_i a_ij / (1 − a_ij) · ‖v_j‖ / mean ‖v‖; all heads of all layers share one budget by these scores.

    a_i = softmax_j(q̃_i · k_j · scaling) over all keys j, with q̃_i = R(L) R(i)⁻¹ q_i, every query of the prompt at the
    next position L; i runs through all queries of a key/value head's group. An output that loses token j changes by
    a / (1 − a) · (o − v_j). The mean of ‖v‖ is the layer's. Only the sum of α1 and α2 counts.

    Attributes:
        least: of M + N, the share that every head keeps at least.
    """

    divides_budget: ClassVar[bool] = True
    ragged_heads: ClassVar[bool] = True
    whole_prompt: ClassVar[bool] = True
    compresses_text_only: ClassVar[bool] = True

    least: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_share("least", self.least)

    def promised_recent(self, length: int) -> int:
        return 0

    def observe(self, layer: Layer) -> None:
        scores = layer.shared(Replay, lambda: replayed_scores(layer))
        layer.remember(self.selection_key(layer.length), scores)

    def layer_total(self, layer: Layer) -> int:
        return sum(self._counts(layer))

    def keep(self, layer: Layer) -> list[Tensor]:
        scores = layer.all_layers(self.selection_key(layer.length))[layer.index]
        return ragged_top(scores, self._counts(layer), layer.length, 0)

    def _counts(self, layer: Layer) -> Sequence[int]:
        """How many tokens each head of the layer keeps; divided once for all layers."""
        key = self.selection_key(layer.length)
        divided = layer.memory.setdefault((key, "divided"), {})
        if not divided:
            scores = torch.cat(layer.all_layers(key))  # [n_layers · Hkv, L]
            tokens = self.promised_tokens(layer.is_image)
            counts = counts_across_heads(scores, len(scores) * tokens, int(self.least * tokens))
            heads = layer.kv_heads
            divided.update((i, counts[i * heads : (i + 1) * heads]) for i in range(layer.n_layers))
        return divided[layer.index]


def replayed_scores(layer: Layer) -> Tensor:
    """The scores of `Replay`, (Hkv, L) float32."""
    assert layer.scaling is not None
    rotation = layer.rotary()
    queries = rotated(rotation.before(layer.queries), *rotation.ahead(1))  # q̃: [Hq, L, D]
    queries = queries.unflatten(0, (layer.kv_heads, -1)).flatten(1, 2) * layer.scaling  # [Hkv, G · L, D]
    keys = layer.keys.float().transpose(1, 2)  # [Hkv, D, L]
    a = torch.zeros(layer.kv_heads, layer.length, device=keys.device)
    rows = rows_per_block(layer.length, keys.device)
    for head in range(layer.kv_heads):
        for block in queries[head].split(rows):
            a[head] = a[head].maximum((block @ keys[head]).softmax(-1).amax(0))
    a = a.clamp(max=MOST)
    norms = layer.values.float().norm(dim=-1)
    return a / (1 - a) * (norms / norms.mean())
