"""CORM (arXiv 2404.15949): a key stays while recent queries find it important; no budget says how many do.

The paper applies the rule to a ring of the last w queries while decoding, too; here the prompt is cut once by it, and
the tokens of the answer all stay.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lookm.layer import Layer
from lookm.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class Corm(Strategy):
    """Keep the last r tokens, and every token i with A[t, i] ≥ 1 / (t + 1) for one of the last w queries t (from 0).

    The share 1 / (t + 1) is what each of the t + 1 tokens that query t sees would get of even attention. Heads keep
    what is important to any query head of their group, and different numbers of tokens; α1 and α2 mean nothing here.

    Attributes:
        window: w.
        recent: r.
    """

    ragged_heads: ClassVar[bool] = True
    compresses_text_only: ClassVar[bool] = True

    window: int = 256
    recent: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("window", self.window)
        self._check_count("recent", self.recent, least=1)

    @property
    def fixed_size(self) -> bool:
        return False

    def promised_tokens(self, is_image: Tensor) -> int:
        return is_image.numel()

    def promised_recent(self, length: int) -> int:
        return min(self.recent, length)

    def keep(self, layer: Layer) -> list[Tensor]:
        first = max(0, layer.length - self.window)
        important = torch.zeros(layer.kv_heads, layer.length, dtype=torch.bool, device=layer.keys.device)
        for _, logits in layer.logits(first):
            seen = (logits > -torch.inf).sum(-1, keepdim=True)  # t + 1 under a causal mask
            hits = layer.softmax(logits) * seen >= 1  # [Hq, rows, keys]
            important[:, : logits.shape[2]] |= hits.any(1).unflatten(0, (layer.kv_heads, -1)).any(1)
        important[:, layer.length - self.promised_recent(layer.length) :] = True
        return [head.nonzero().squeeze(1) for head in important]
