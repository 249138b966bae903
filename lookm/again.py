"""Growing contexts: a compressed cache is compressed again whenever so many new tokens have come."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lookm.compression import compress_many, joined_needs
from lookm.errors import LookmError
from lookm.layer import Layer
from lookm.prompt import image_mask
from lookm.statistics import Needs, Statistics
from lookm.storage.base import PLAIN
from lookm.storage.rows import CompressedRow
from lookm.strategy import Strategy


@dataclass(frozen=True)
class Again:
    """When a cache is compressed again, and to how many tokens.

    What is held and the new tokens compete for a budget that does not grow: that of the strategy in tokens, or its
    shares of `every` tokens or of the first prompt, whichever is longer. Of attention only the new tokens' queries are
    read; the older ones have had their say, and what was merged stays merged. A text prior keeps text first, but never
    more than that budget: the heads hold different tokens, so each has its own text and images.
    """

    strategy: Strategy
    every: int

    @classmethod
    def of(cls, strategy: Strategy, every: int) -> Again:
        """Checked.

        Raises:
            LookmError: for a number that is none, or a strategy that reads more of a prompt than is left of it.
        """
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise LookmError(f"every={every!r} is no number of tokens; give a whole number of at least 1")
        if not strategy.compresses_again or strategy.semantics != "paper" or strategy.storage != PLAIN:
            raise LookmError(
                f"every={every} compresses again what {strategy.label} left, which it cannot read: use h2o, tova, "
                "snapkv, window, keydiff, knorm, p_merge or tp_pmerge with semantics=paper and storage=plain"
            )
        return cls(strategy, every)

    @property
    def reads_modality(self) -> bool:
        """Whether the strategy asks which of the held tokens are of images."""
        return getattr(self.strategy, "text_prior", "off") != "off"

    def images_among(self, ids: Tensor | None, image_ids: tuple[int, ...]) -> Tensor | None:
        """Which new tokens (B, n) are of images, bool; None where the strategy does not ask.

        Raises:
            LookmError: it asks, and the model was given embeddings alone.
        """
        if not self.reads_modality:
            return None
        if ids is None:
            raise LookmError(f"{self.strategy.name} with every={self.every} needs the new tokens' input_ids")
        return image_mask(ids, image_ids)

    def target(self, prompt_tokens: int) -> int:
        """Tokens that every head holds after compressing again, given the first prompt's length."""
        if self.strategy.budget is not None and self.strategy.budget > 1:
            return int(self.strategy.budget)
        return sum(self.strategy.window_sizes(max(prompt_tokens, self.every)))

    def row(
        self,
        keys: Tensor,
        values: Tensor,
        queries: Tensor,
        scaling: float | None,
        target: int,
        is_image: Tensor | None = None,
    ) -> CompressedRow:
        """One row compressed again.

        Args:
            keys: (Hkv, K, D), all that is held, the new tokens last.
            values: (Hkv, K, Dv), likewise.
            queries: (Hq, n, D) of the new tokens.
            scaling: factor on Q Kᵀ, by default 1 / √D.
            target: tokens to keep.
            is_image: (Hkv, K) bool, where the strategy asks for it.
        """
        no_image = torch.zeros(keys.shape[1], dtype=torch.bool, device=keys.device)
        scaling = keys.shape[-1] ** -0.5 if scaling is None else scaling
        strategy = replace(self.strategy, budget=max(2, target))
        statistics = later_statistics(queries, keys, joined_needs([strategy], no_image), scaling)
        layer = Layer(queries[:, :0], keys, values, no_image, scaling, statistics=statistics)
        if is_image is None:
            return compress_many([strategy], layer)[0]
        heads = []
        for number, of_head in enumerate(is_image):
            head = layer.head(number)
            head.is_image = of_head
            heads += compress_many([strategy], head)
        parts = zip(*((head.keys, head.values, head.positions) for head in heads), strict=True)
        states = [torch.cat(part) for part in parts]
        return CompressedRow(keys=states[0], values=states[1], positions=states[2])


@torch.no_grad()
def later_statistics(queries: Tensor, keys: Tensor, needs: Needs, scaling: float) -> Statistics:
    """Sum the attention weights of the last n tokens alone: queries (Hq, n, D), keys (Hkv, K, D), n ≤ K."""
    n, length = queries.shape[1], keys.shape[1]
    later = torch.arange(length, device=keys.device) > torch.arange(length - n, length, device=keys.device)[:, None]
    parts: list[Tensor] = []
    for group, k in zip(queries.unflatten(0, (keys.shape[0], -1)), keys, strict=True):  # (G, n, D), (K, D)
        logits = (group.float() @ k.float().T) * scaling
        parts.append(logits.masked_fill_(later, -torch.inf).softmax(-1))
    weights = torch.cat(parts)  # [Hq, n, K]
    return Statistics(
        sums=weights.sum(1) if needs.sums else None,
        squares=weights.square().sum(1) if needs.squares else None,
        windows={w: weights[:, -w:].sum(1) for w in needs.windows},
    )
