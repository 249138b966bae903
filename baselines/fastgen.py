"""FastGen (arXiv 2310.01801): each head gets the cheapest of five policies that recovers its attention.

The authors recompute the policies' sets while decoding; here they are those of the prompt, and the answer's tokens all
stay. What is recovered is measured over all queries of the prompt, as Σ of the column sums of what a policy keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from unicodedata import category

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lookm.layer import Layer
from lookm.statistics import Needs
from lookm.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class FastGen(Strategy):
    """The first policy whose share of a head's attention is at least `recovery`, each with all of the ones before it.

    Special tokens; punctuation; the `frequent` · L highest column sums; the last `local` · L tokens; everything. The
    prompt's last token stays in any case. Heads keep different numbers of tokens; α1 and α2 mean nothing here.

    Attributes:
        recovery: share of the attention mass of the prompt's queries.
        frequent: share of the prompt.
        local: share of the prompt.
        special: ids of special tokens; the prompt's first token is one whatever its id.
        punctuation: ids of punctuation, such as `punctuation_ids` finds; none are known without a tokenizer.
    """

    ragged_heads: ClassVar[bool] = True
    compresses_text_only: ClassVar[bool] = True

    recovery: float = 0.9
    frequent: float = 0.3
    local: float = 0.3
    special: tuple[int, ...] = ()
    punctuation: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("recovery", "frequent", "local"):
            self._check_share(field, getattr(self, field))
        for field in ("special", "punctuation"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
            for number in getattr(self, field):
                self._check_count(field, number)

    @property
    def fixed_size(self) -> bool:
        return False

    def promised_tokens(self, is_image: Tensor) -> int:
        return is_image.numel()

    def promised_recent(self, length: int) -> int:
        return min(1, length)

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(sums=True)

    def keep(self, layer: Layer) -> list[Tensor]:
        sums = layer.column_sums()  # [Hkv, L]
        kept = torch.zeros_like(sums, dtype=torch.bool)
        kept[:, -1] = True
        open_heads = torch.ones(layer.kv_heads, 1, dtype=torch.bool, device=sums.device)
        enough = self.recovery * sums.sum(1, keepdim=True)
        for policy in self._policies(layer, sums):
            kept |= policy & open_heads
            open_heads &= (sums * kept).sum(1, keepdim=True) < enough
        return [head.nonzero().squeeze(1) for head in kept | open_heads]

    def _policies(self, layer: Layer, sums: Tensor) -> list[Tensor]:
        """What each policy adds, (L,) or (Hkv, L) bool."""
        positions = torch.arange(layer.length, device=sums.device)
        first = self._among(layer, self.special) | (positions == 0)
        ranks = sums.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        recent = positions >= layer.length - int(self.local * layer.length)
        return [first, self._among(layer, self.punctuation), ranks < int(self.frequent * layer.length), recent]

    def _among(self, layer: Layer, ids: Sequence[int]) -> Tensor:
        """Which tokens of the prompt have one of these ids; none where the ids are not known."""
        if layer.token_ids is None or not ids:
            return torch.zeros(layer.length, dtype=torch.bool, device=layer.keys.device)
        return torch.isin(layer.token_ids, torch.tensor(ids, device=layer.token_ids.device))


def punctuation_ids(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """Ids of the tokens that are nothing but punctuation, white space around it aside."""
    pieces = ((number, str(tokenizer.decode([number])).strip()) for number in range(len(tokenizer)))
    special = set(tokenizer.all_special_ids)
    return tuple(
        number
        for number, text in pieces
        if text and number not in special and all(category(letter).startswith("P") for letter in text)
    )
