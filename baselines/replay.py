"""Replay: what any query of the prompt would look at if it were asked again at the prompt's end. docs/method.md.

Windows of last queries know one question, and only if it was asked before the compression. Here every query of the
prompt stands for a question that may come: the rotary embedding moves it to the next position, without another pass of
the model, and there it sees all keys. KVzip (arXiv 2505.23416) has the model repeat its context for the same purpose.
What no query of the prompt looks at may still be asked for: text and the first tokens of every image have a floor.
"""

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

LIFT = 0.99
"""How far a score below its floor is lifted to it: the rest keeps the scores' order among those that were lifted."""


@dataclass(frozen=True, kw_only=True)
class Replay(Strategy):
    """Score s = max_i a_ij / (1 − a_ij) · ‖v_j‖ / mean ‖v‖, at least f_j; all heads of all layers share one budget.

    a_i = softmax_j(q̃_i · k_j · scaling) over all keys j, with q̃_i = R(L) R(i)⁻¹ q_i, every query of the prompt at the
    next position L; i runs through all queries of a key/value head's group. An output that loses token j changes by
    a / (1 − a) · (o − v_j). The mean of ‖v‖ is the layer's. Only the sum of α1 and α2 counts.

    f_j = λ for text and λ · (images / place of j) for image tokens, where places go round the images: first each one's
    best token, then each one's second; the best token of a layer is the one with the highest s of any head.
    λ = min(`floor`, the score that `asked` of the budget's slots exceed).

    Attributes:
        floor: λ at most, in odds: 1 stands for a later query that gives half of its attention to the token; 0 for none.
        asked: share of the slots that only tokens of a higher s than λ get.
        least: of M + N, the share that every head keeps at least.
    """

    divides_budget: ClassVar[bool] = True
    ragged_heads: ClassVar[bool] = True
    whole_prompt: ClassVar[bool] = True
    compresses_text_only: ClassVar[bool] = True

    floor: float = 1.0
    asked: float = 0.5
    least: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.floor != 0:
            self._check_above_zero("floor", self.floor)
        self._check_share("asked", self.asked)
        self._check_share("least", self.least)

    def promised_recent(self, length: int) -> int:
        return 0

    def observe(self, layer: Layer) -> None:
        scores = layer.shared(Replay, lambda: replayed_scores(layer))
        layer.remember(self.selection_key(layer.length), scores)

    def layer_total(self, layer: Layer) -> int:
        return sum(self._division(layer)[1])

    def keep(self, layer: Layer) -> list[Tensor]:
        scores, counts = self._division(layer)
        return ragged_top(scores, counts, layer.length, 0)

    def _division(self, layer: Layer) -> tuple[Tensor, list[int]]:
        """The layer's scores (Hkv, L) and how many tokens each head keeps; divided once for all layers."""
        key = self.selection_key(layer.length)
        divided = layer.memory.setdefault((key, "divided"), {})
        if not divided:
            tokens = self.promised_tokens(layer.is_image)
            scores = self._with_floors(layer.all_layers(key), layer.is_image, tokens)
            heads = layer.kv_heads
            counts = counts_across_heads(torch.cat(scores), len(scores) * heads * tokens, int(self.least * tokens))
            divided.update((i, (row, counts[i * heads : (i + 1) * heads])) for i, row in enumerate(scores))
        own: tuple[Tensor, list[int]] = divided[layer.index]
        return own

    def _with_floors(self, scores: list[Tensor], is_image: Tensor, tokens: int) -> list[Tensor]:
        """Every layer's scores (Hkv, L), where `tokens` stay in a head on the mean."""
        if self.floor == 0:
            return scores
        ordered = torch.cat(scores).flatten().sort(descending=True).values
        rank = int(self.asked * tokens * (ordered.numel() // len(is_image)))
        level = ordered[min(rank, ordered.numel() - 1)].clamp(max=self.floor)  # λ
        return [row + LIFT * (level * coverage(row.amax(0), is_image) - row).clamp(min=0) for row in scores]


def coverage(scores: Tensor, is_image: Tensor) -> Tensor:
    """f_j / λ of `Replay`: 1 for text, images / place for image tokens. Images that touch count as one.

    Args:
        scores: (L,) float32, by which an image's tokens are ordered.
        is_image: (L,) bool.

    Returns:
        (L,) float32.
    """
    f = torch.ones_like(scores)
    tokens = is_image.nonzero()[:, 0]
    if not len(tokens):
        return f
    image = torch.cat([tokens.new_zeros(1), (tokens.diff() > 1).cumsum(0)])  # [P], which image each token is of
    best = scores[tokens].argsort(descending=True, stable=True)
    grouped = best[image[best].argsort(stable=True)]  # image after image, the best tokens first
    sizes = torch.bincount(image)
    first = sizes.cumsum(0) - sizes
    rank = torch.empty_like(tokens)  # in the own image
    rank[grouped] = torch.arange(len(tokens), device=tokens.device) - first[image[grouped]]
    round_robin = best[rank[best].argsort(stable=True)]
    f[tokens[round_robin]] = len(sizes) / torch.arange(1, len(tokens) + 1, device=tokens.device)
    return f


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
