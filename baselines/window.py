"""The last queries' attention and nothing else: the plain baseline that observation windows are compared with."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lookm.layer import Layer
from lookm.ranking import ScoreStrategy
from lookm.statistics import Needs


@dataclass(frozen=True, kw_only=True)
class Window(ScoreStrategy):
    """Score W_j(w) = Σ A[i, j] over the last w queries, without pooling; a small recent window of fixed size.

    Attributes:
        window: w.
    """

    heads_apart: ClassVar[bool] = True
    compresses_again: ClassVar[bool] = True

    recent: int = 8
    window: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("window", self.window)

    def needs(self, is_image: Tensor) -> Needs:
        return Needs(windows=frozenset({self.window}))

    def scores(self, layer: Layer) -> Tensor:
        return layer.per_kv_head(layer.window(self.window))
