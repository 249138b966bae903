"""Attention statistics where the softmax is not the plain causal one: under the model's own mask, soft-capped logits
(Gemma 2, arXiv 2408.00118) or attention sinks, logits that take a share and give no value (GPT-OSS).
"""

import torch
from torch import Tensor

from lookm.blocks import rows_per_block
from lookm.errors import LookmError
from lookm.statistics import Needs, Statistics, Totals


@torch.no_grad()
def masked_statistics(
    queries: Tensor,
    keys: Tensor,
    needs: Needs,
    mask: Tensor,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Statistics:
    """Sum the attention weights of one prompt over its queries, block by block.

    Args:
        queries: (Hq, L, D), after the rotary embedding, any floating dtype; products and sums are float32.
        keys: (Hkv, L, D); Hq is a multiple of Hkv.
        needs: the sums to make.
        mask: (1 or Hq, L, L), bool with true for what is seen, or added to the logits.
        scaling: factor on Q Kᵀ, by default 1 / √D.
        softcap: logits x become softcap · tanh(x / softcap), before the mask.
        sinks: (Hq,) one more logit of every query, without a key.

    Raises:
        LookmError: where queries see later keys and squares are needed: means over the queries that see a key
            (RoCo) are defined for causal attention.
    """
    heads, length, size = queries.shape
    if needs.squares and _sees_later_keys(mask):
        raise LookmError(
            "means and deviations (roco) are defined for causal attention; this model lets tokens see later ones"
        )
    scaling = size**-0.5 if scaling is None else scaling
    totals = Totals(needs, queries)
    transposed = keys.float().transpose(1, 2)  # [Hkv, D, L]
    block = rows_per_block(heads * length, queries.device)
    for start in range(totals.first // block * block, length, block):
        end = min(start + block, length)
        q = queries[:, start:end].float() * scaling
        logits = torch.bmm(q.reshape(keys.shape[0], -1, size), transposed).view(heads, end - start, length)
        if softcap is not None:
            logits = softcap * torch.tanh(logits / softcap)
        logits = logits + _added(mask[:, start:end])
        if sinks is not None:
            logits = torch.cat([logits, sinks.float().view(-1, 1, 1).expand(heads, end - start, 1)], dim=-1)
        weights = logits.softmax(-1)[..., :length].contiguous()
        totals.add(weights, slice(0, heads), start, 0)
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
    return mask.float()


def _sees_later_keys(mask: Tensor) -> bool:
    return bool(((_added(mask) > -1) & _above_diagonal(mask.shape[-1], mask.device)).any())


def _above_diagonal(length: int, device: torch.device) -> Tensor:
    return torch.ones(length, length, dtype=torch.bool, device=device).triu_(1)
