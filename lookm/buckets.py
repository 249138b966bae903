"""Which rows decode together, and in how many tensors their caches lie.

Rows that keep little beside rows that keep all would be mostly padding in one tensor; a tensor for each row would be an
attention call for each row and layer. Buckets of rows of similar size are between the two: the cheapest division of
the rows, sorted by size, where each bucket costs a fixed number of bytes besides its padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BUCKET_BYTES = {"cpu": 1 << 18, "cuda": 1 << 24}
"""Bytes of keys and values that are read in the time of one more attention call, about."""


@dataclass(frozen=True)
class Bucket:
    """Rows start … stop − 1 of the decode batch, held in one tensor.

    Attributes:
        start: its first row.
        stop: the row after its last one.
        width: prompt tokens of its longest row; shorter ones are padded on the left.
        kept: prompt tokens of each row.
    """

    start: int
    stop: int
    width: int
    kept: tuple[int, ...]

    @property
    def is_padded(self) -> bool:
        """Whether a row is shorter than the longest."""
        return min(self.kept) < self.width

    def mask(self, new_tokens: int, dtype: torch.dtype, device: torch.device) -> Tensor | None:
        """Added to the attention's logits: −∞ on padding, (rows, 1, 1, width + new_tokens); None without padding."""
        if not self.is_padded:
            return None
        padding = self.width - torch.tensor(self.kept, device=device)
        slots = torch.arange(self.width + new_tokens, device=device)
        mask = torch.zeros(len(self.kept), self.width + new_tokens, dtype=dtype, device=device)
        return mask.masked_fill_(slots < padding[:, None], -torch.inf)[:, None, None]


def divide(sizes: Sequence[int], fixed: int) -> list[Bucket]:
    """Cut rows into buckets so that Σ (fixed + rows · width) is smallest.

    Args:
        sizes: tokens of each row, in descending order.
        fixed: what a bucket costs besides, in tokens.

    Returns:
        The buckets, which cover the rows in order.
    """
    # best[i]: the cheapest division of the rows before i, (cost, start of its last bucket); cuts only between sizes
    cuts = [0, *(row for row in range(1, len(sizes)) if sizes[row] != sizes[row - 1]), len(sizes)]
    best: dict[int, tuple[int, int]] = {0: (0, 0)}
    for place, stop in enumerate(cuts[1:], start=1):
        best[stop] = min((best[start][0] + fixed + (stop - start) * sizes[start], start) for start in cuts[:place])
    buckets: list[Bucket] = []
    stop = len(sizes)
    while stop > 0:
        start = best[stop][1]
        buckets.append(Bucket(start, stop, sizes[start], tuple(sizes[start:stop])))
        stop = start
    return buckets[::-1]


def bucket_cost(device: torch.device, token_bytes: int) -> int:
    """`fixed` of `divide`: tokens of one layer that are read in the time of one attention call."""
    return max(1, BUCKET_BYTES.get(device.type, BUCKET_BYTES["cuda"]) // token_bytes)
