"""What is added to quantised states to come nearer to the exact ones: a matrix of low rank, and outliers.

GEAR, arXiv 2403.05527, Section 3: X ≈ D̂ + L + S, where S has the outliers of X, D̂ is the rest quantised, and L the
best matrix of rank r for what is then left, head by head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lookm.storage.forms import Form
from lookm.storage.quantised import DIM, Axis, quantised, working
from lookm.storage.rows import compact


@dataclass(frozen=True)
class Corrected(Form):
    """A form, a matrix of low rank, and outliers.

    Attributes:
        base: D̂.
        left: (H, n, r), in the states' precision; L = left · rightᵀ.
        right: (H, D, r), likewise.
        outliers: the k outliers of each channel, (H, k, D), or of each token, (H, n, k), in the states' precision.
        index: the tokens, or the channels, that they are at: the same shape, the narrowest integers that reach.
        axis: "tokens" or "channels".
    """

    base: Form
    left: Tensor
    right: Tensor
    outliers: Tensor
    index: Tensor
    axis: Axis

    def restored(self) -> Tensor:
        low_rank = torch.bmm(self.left, self.right.transpose(1, 2))
        return (self.base.restored() + low_rank).scatter_(DIM[self.axis], self.index.long(), self.outliers)


def corrected(states: Tensor, bits: int, group: int, axis: Axis, rank: int, share: float) -> Corrected:
    """Quantise states (H, n, D) in groups of tokens or channels, and keep what corrects them.

    Args:
        states: any floating dtype.
        bits: of a quantised number.
        group: tokens or channels in a group.
        axis: of a group, and along which outliers are looked for.
        rank: of L.
        share: of the numbers that are outliers, s: round(s / 2 · n) of the largest, and as many of the smallest, of n.
    """
    dim = DIM[axis]
    n = states.shape[dim]
    each = outliers_each_way(share, n)
    order = states.argsort(dim=dim, stable=True)
    index = torch.cat([order.narrow(dim, 0, each), order.narrow(dim, n - each, each)], dim=dim)
    least, most = (states.gather(dim, order.narrow(dim, place, 1)) for place in (each, n - 1 - each))
    rest = states.clamp(least, most)  # outliers stretch no group's range
    base = quantised(rest, bits, group, axis)
    left, right = low_rank(rest - base.restored(), rank)
    return Corrected(base, left, right, states.gather(dim, index), narrow(index, n), axis)


def low_rank(states: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best approximation of each head's states (H, n, D) by left · rightᵀ, (H, n, r) and (H, D, r), r ≤ rank.

    Right are X's right singular vectors, the eigenvectors of XᵀX with the largest eigenvalues; left is X · right.
    """
    x = states.to(working(states.dtype)).nan_to_num(0.0, 0.0, 0.0)  # they reach attention by way of the base
    rank = min(rank, *x.shape[1:])
    right = torch.linalg.eigh(torch.bmm(x.transpose(1, 2), x)).eigenvectors[..., x.shape[2] - rank :]
    return torch.bmm(x, right).to(states.dtype), compact(right.to(states.dtype))


def narrow(index: Tensor, limit: int) -> Tensor:
    """Indices below `limit` in the narrowest integers that hold them."""
    return index.to(_narrowest(limit))


def index_bytes(limit: int) -> int:
    """Bytes of an index that `narrow` makes."""
    return _narrowest(limit).itemsize


def _narrowest(limit: int) -> torch.dtype:
    return next(kind for kind in (torch.uint8, torch.int16, torch.int32) if limit - 1 <= torch.iinfo(kind).max)


def outliers_each_way(share: float, n: int) -> int:
    """How many of n numbers are outliers as the largest, and as many as the smallest."""
    return min(round(share / 2 * n), (n - 1) // 2)
