"""H2O, heavy hitters (arXiv 2306.14048): the highest column sums and the recent window.

The authors evict while decoding too; here, as in LOOK-M's comparison, the cache is cut once, after the prompt.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lookm.eviction import heavy_hitters, heavy_hitters_key
from lookm.layer import Layer
from lookm.statistics import Needs
from lookm.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class H2O(Strategy):
    """Keep the last M tokens and the N of the others that received the most attention."""

    heads_apart: ClassVar[bool] = True
    compresses_again: ClassVar[bool] = True

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(sums=True)

    def selection_key(self, length: int) -> Hashable:
        return heavy_hitters_key(*self.window_sizes(length))

    def keep(self, layer: Layer) -> Tensor:
        return heavy_hitters(layer.column_sums(), *self.window_sizes(layer.length))
