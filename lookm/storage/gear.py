"""GEAR (arXiv 2403.05527): KIVI's quantised states, a matrix of low rank for its error, and the outliers exactly.

X ≈ D̂ + L + S, Section 3. The authors' outliers of a token are found among the channels of all heads, here in each
head by itself; L is the best of its rank, theirs comes from a few power iterations. They buffer 20 new tokens and then
compress them with rank 2; here new tokens stay whole.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lookm.layer import Layer
from lookm.storage.forms import Form
from lookm.storage.kivi import Kivi
from lookm.storage.quantised import Axis
from lookm.storage.sparse import corrected, index_bytes, outliers_each_way


@dataclass(frozen=True, kw_only=True)
class Gear(Kivi):
    """Quantised states as KIVI's, plus the best matrix of low rank for what they lack, plus the outliers.

    Attributes:
        rank: r of each head's matrix.
        outliers: share s of a channel's keys, or a token's values, that are exact: half of it the largest, half the
            smallest, rounded; in short runs that is none.
    """

    longest_residual: ClassVar[int] = 20

    group: int = 64
    rank: int = 4
    outliers: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("rank", self.rank)
        self._check_share("outliers", self.outliers)

    def key_form(self, keys: Tensor, first: int, layer: Layer, heads: slice) -> Form:
        return self._form(keys[:, :first], "tokens")

    def value_form(self, values: Tensor) -> Form:
        return self._form(values, "channels")

    def _form(self, states: Tensor, axis: Axis) -> Form:
        return corrected(states, self.bits, self.group, axis, self.rank, self.outliers)

    def form_bytes(self, tokens: int, size: int, itemsize: int) -> int:
        low_rank = (tokens + size) * min(self.rank, tokens, size) * itemsize
        outliers = sum(  # among a channel's keys, and among a token's values
            2 * outliers_each_way(self.outliers, n) * (tokens * size // n) * (itemsize + index_bytes(n))
            for n in (tokens, size)
        )
        return super().form_bytes(tokens, size, itemsize) + 2 * low_rank + outliers
