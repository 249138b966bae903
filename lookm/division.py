"""Strategies that divide a budget of tokens among the layers, after all of them were read."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from lookm.budgets import apportion
from lookm.eviction import top_positions, with_recent
from lookm.layer import Layer
from lookm.strategy import Strategy


@dataclass(frozen=True, kw_only=True)
class DividedStrategy(Strategy):
    """Keep M + N tokens on the mean of all layers: in each the last `promised_recent` and the highest scores.

    A subclass answers `read`, and `divide` where a layer's tokens are not in proportion to its weight.
    """

    divides_budget: ClassVar[bool] = True
    whole_prompt: ClassVar[bool] = True
    compresses_text_only: ClassVar[bool] = True

    @abstractmethod
    def read(self, layer: Layer) -> tuple[Any, Tensor]:
        """What a layer's share is made from, and how important each of its tokens is.

        Returns:
            What `divide` gets of the layer, by default its weight, a scalar tensor; and scores, (Hkv, L) float32 or for
            one choice for all heads (1, L).
        """

    def divide(self, measures: list[Any], layer: Layer) -> list[int]:
        """The tokens of each layer, n_layers · (M + N) in all, from what was measured of each."""
        budget = sum(self.window_sizes(layer.length))
        least = max(1, self.promised_recent(layer.length))
        return apportion([float(weight) for weight in measures], layer.n_layers * budget, least, layer.length)

    def seen_scores(self, layer: Layer) -> Tensor:
        """The scores that `read` gave for this layer."""
        scores: Tensor = layer.all_layers((self.selection_key(layer.length), "scores"))[layer.index]
        return scores

    def observe(self, layer: Layer) -> None:
        key = self.selection_key(layer.length)
        measure, scores = self.read(layer)
        layer.remember(key, measure)
        layer.remember((key, "scores"), scores)

    def layer_tokens(self, layer: Layer) -> int:
        key = self.selection_key(layer.length)
        divided = layer.memory.setdefault((key, "divided"), {})
        if not divided:
            divided.update(enumerate(self.divide(layer.all_layers(key), layer)))
        return int(divided[layer.index])

    def keep(self, layer: Layer) -> Tensor:
        recent = self.promised_recent(layer.length)
        past = self.seen_scores(layer)[:, : layer.length - recent].expand(layer.kv_heads, -1)
        return with_recent(top_positions(past, self.layer_tokens(layer) - recent), layer.length, recent)
