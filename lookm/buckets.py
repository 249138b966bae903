"""Which rows decode together, and in how many tensors their caches lie.

Rows that keep little beside rows that keep all would be mostly padding in one tensor; a tensor for each row would be an
attention call for each row and layer. Buckets of rows of similar size are between the two: the cheapest division of
the rows, sorted by size, where each bucket costs a fixed number of bytes besides its padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from lookm.strategy import Strategy

BUCKET_BYTES = {"cpu": 1 << 18, "cuda": 1 << 24}
"""Bytes of keys and values that are read in the time of one more attention call, about."""

SLOT_MULTIPLE = 8
"""Slots are a multiple of this, as kernels want their masks aligned."""


@dataclass(frozen=True)
class DecodeRow:
    """One row of the decode batch.

    Attributes:
        prompt_row: the prompt it goes on from.
        strategies: indices of the strategies whose row it is; all that evict nothing of a prompt share one.
        kept: prompt tokens it holds in every layer and head.
    """

    prompt_row: int
    strategies: tuple[int, ...]
    kept: int


def decode_rows(strategies: Sequence[Strategy], row_is_image: Sequence[Tensor]) -> list[DecodeRow]:
    """The rows of a sweep, the largest first and those of a prompt side by side."""
    rows: list[DecodeRow] = []
    for prompt_row, is_image in enumerate(row_is_image):
        promised = [strategy.promised_tokens(is_image) for strategy in strategies]
        whole = tuple(index for index, kept in enumerate(promised) if kept == is_image.numel())
        sharing = [whole] if whole else []
        sharing += [(index,) for index in range(len(strategies)) if index not in whole]
        rows += [DecodeRow(prompt_row, members, promised[members[0]]) for members in sharing]
    return sorted(rows, key=lambda row: (-row.kept, row.prompt_row))


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

    def slots(self, new_tokens: int) -> int:
        """Tokens of each row that there is room for: the prompt's and the new ones, rounded up."""
        return -(-(self.width + new_tokens) // SLOT_MULTIPLE) * SLOT_MULTIPLE

    def only(self, rows: Sequence[int], start: int) -> "Bucket":
        """The bucket of some of its rows, counted from its own start, beginning at row `start`; a little narrower."""
        kept = tuple(self.kept[row] for row in rows)
        cut = (self.width - max(kept)) // SLOT_MULTIPLE * SLOT_MULTIPLE
        return Bucket(start, start + len(kept), self.width - cut, kept)

    def padding(self, dtype: torch.dtype, device: torch.device, slots: int) -> Tensor | None:
        """Added to the attention's logits: −∞ on padding, (rows, 1, 1, slots); None if no row is padded."""
        if min(self.kept) == self.width:
            return None
        first = self.width - torch.tensor(self.kept, device=device)
        mask = torch.zeros(len(self.kept), slots, dtype=dtype, device=device)
        return mask.masked_fill_(torch.arange(slots, device=device) < first[:, None], -torch.inf)[:, None, None]


def divide(sizes: Sequence[int], fixed: int) -> list[Bucket]:
    """Cut rows into buckets so that Σ (fixed + rows · width) is smallest.

    Args:
        sizes: tokens of each row.
        fixed: what a bucket costs besides, in tokens.

    Returns:
        The buckets, which cover the rows in order.
    """
    # best[i]: the cheapest division of the rows before i, (cost, start of its last bucket); cuts only between sizes
    cuts = [0, *(row for row in range(1, len(sizes)) if sizes[row] != sizes[row - 1]), len(sizes)]
    best: dict[int, tuple[float, int]] = {0: (0, 0)}
    for place, stop in enumerate(cuts[1:], start=1):
        width, cheapest = 0, (inf, 0)
        for start in reversed(cuts[:place]):
            width = max(width, sizes[start])  # rows between two cuts are equal
            cost = fixed + (stop - start) * width
            if cost > cheapest[0]:
                break  # earlier starts make the last bucket larger
            cheapest = min(cheapest, (best[start][0] + cost, start))
        best[stop] = cheapest
    buckets: list[Bucket] = []
    stop = len(sizes)
    while stop > 0:
        start = best[stop][1]
        buckets.append(Bucket(start, stop, max(sizes[start:stop]), tuple(sizes[start:stop])))
        stop = start
    return buckets[::-1]


def bucket_cost(device: torch.device, token_bytes: int) -> int:
    """`fixed` of `divide`: tokens of one layer that are read in the time of one attention call."""
    return max(1, BUCKET_BYTES.get(device.type, BUCKET_BYTES["cuda"]) // token_bytes)
