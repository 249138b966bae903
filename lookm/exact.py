"""Attention statistics where the softmax is not the plain causal one: under the model's own mask, soft-capped logits
(Gemma 2, arXiv 2408.00118) or attention sinks, logits that take a share and give no value (GPT-OSS).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lookm.blocks import block_begin, rows_per_block
from lookm.errors import LookmError
from lookm.statistics import Needs, RunningSums, Statistics


@dataclass(frozen=True)
class RealSoftmax:
    """How one prompt attends where it is not plainly causal.

    Attributes:
        mask: (1 or Hq, L, L), bool with true for what is seen, or added to the logits.
        softcap: logits x become softcap · tanh(x / softcap), before the mask.
        sinks: (Hq,) one more logit of every query, without a key.
    """

    mask: Tensor
    softcap: float | None = None
    sinks: Tensor | None = None

    def logits(self, queries: Tensor, keys: Tensor, scaling: float, *, first: int = 0) -> Iterator[tuple[int, Tensor]]:
        """As `lookm.statistics.causal_logits`, over all L keys: (Hq, rows, L) float32, −∞ where a key is not seen."""
        heads, length, size = queries.shape
        transposed = keys.float().transpose(1, 2)  # [Hkv, D, L]
        block = rows_per_block(heads * length, queries.device)
        for start in range(first, length, block):
            end = min(start + block, length)
            q = queries[:, start:end].float() * scaling
            logits = torch.bmm(q.reshape(keys.shape[0], -1, size), transposed).view(heads, end - start, length)
            if self.softcap is not None:
                logits = self.softcap * torch.tanh(logits / self.softcap)
            yield start, logits + _added(self.mask[:, start:end])

    def of_heads(self, heads: slice) -> "RealSoftmax":
        """That of some query heads."""
        mask = self.mask if self.mask.shape[0] == 1 else self.mask[heads]
        return RealSoftmax(mask, self.softcap, None if self.sinks is None else self.sinks[heads])

    def softmax(self, logits: Tensor) -> Tensor:
        """The weights of logits (Hq, rows, L); a sink takes its share of them."""
        if self.sinks is None:
            return logits.softmax(-1)
        sinks = self.sinks.float().view(-1, 1, 1).expand(*logits.shape[:2], 1)
        return torch.cat([logits, sinks], dim=-1).softmax(-1)[..., :-1]

    @torch.no_grad()
    def statistics(self, queries: Tensor, keys: Tensor, needs: Needs, scaling: float) -> Statistics:
        """Sum the attention weights of the prompt over its queries, block by block.

        Args:
            queries: (Hq, L, D), after the rotary embedding, any floating dtype; products and sums are float32.
            keys: (Hkv, L, D); Hq is a multiple of Hkv.
            scaling: factor on Q Kᵀ.

        Raises:
            LookmError: where queries see later keys and squares are needed: means over the queries that see a key
                (RoCo) are defined for causal attention.
        """
        if needs.squares and _sees_later_keys(self.mask):
            raise LookmError(
                "means and deviations (roco) are defined for causal attention; this model lets tokens see later ones"
            )
        totals = RunningSums(needs, queries)
        first = block_begin(totals.first, queries)  # what else is needed changes no block
        for start, logits in self.logits(queries, keys, scaling, first=first):
            totals.add(self.softmax(logits).contiguous(), slice(0, queries.shape[0]), start, 0)
        return totals.statistics()


def causal_mask(starts: tuple[int, ...], like: Tensor) -> Tensor:
    """What is added to the logits of left-padded prompts: (B, 1, L, L), of the dtype and device of `like` (…, L, D)."""
    length = like.shape[-2]
    positions = torch.arange(length, device=like.device)
    padding = positions < torch.tensor(starts, device=like.device)[:, None]  # [B, L]
    hidden = _above_diagonal(length, like.device) | padding[:, None, :]
    hidden &= positions[:, None] != positions  # a padded query sees itself, so that its softmax is finite
    return torch.zeros(hidden.shape, dtype=like.dtype, device=like.device).masked_fill_(
        hidden, torch.finfo(like.dtype).min
    )[:, None]


def _added(mask: Tensor) -> Tensor:
    """A mask as what is added to float32 logits."""
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -torch.inf)
    added = mask.float()
    return added.masked_fill(added <= torch.finfo(mask.dtype).min, -torch.inf)


def _sees_later_keys(mask: Tensor) -> bool:
    return bool(((_added(mask) > -1) & _above_diagonal(mask.shape[-1], mask.device)).any())


def _above_diagonal(length: int, device: torch.device) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).triu_(1)
