"""One prompt in one layer, as strategies read it: states, attention statistics, and what earlier layers left."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from lookm.exact import RealSoftmax
from lookm.rotary import Rotation
from lookm.statistics import Needs, Statistics, attention_statistics, causal_logits

T = TypeVar("T")

LAST_QUERIES = 32
"""Queries of the prompt's end that stay until it is stored."""


@dataclass(eq=False)
class Layer:
    """One prompt in one layer, just after its attention; padding is left out.

    Attributes:
        queries: (Hq, L, D), after the rotary embedding, any floating dtype.
        keys: (Hkv, L, D), after the rotary embedding; query head h belongs to key/value head h // (Hq / Hkv).
        values: (Hkv, L, Dv).
        is_image: (L,) bool, on the same device; the same tensor in every layer of a prompt, so that what is read from
            it on the host is read once.
        scaling: factor on Q Kᵀ; None becomes 1 / √D.
        index: which of the layers that are compressed, from 0.
        n_layers: how many of them there are.
        log_sum_exp: log Σ_j exp(scaling · q_i · k_j) over the keys that query i sees, (Hq, L) float32, where the
            attention kernel computed it.
        statistics: the sums made so far: beside the attention, or by `make_statistics`.
        real: how the prompt attends, where that is not softmax(Q Kᵀ · scaling) of each token on those before it and
            itself, but with another mask, a cap or sinks; the statistics are right in any case.
        rotation: gives the rotary embedding; None for a layer without a model, which has the standard one.
        token_ids: (L,) int64, where they are known.
        memory: one prompt's, handed from layer to layer: what `remember` puts there.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    is_image: Tensor
    scaling: float | None = None
    index: int = 0
    n_layers: int = 1
    log_sum_exp: Tensor | None = None
    statistics: Statistics | None = None
    real: RealSoftmax | None = None
    rotation: Callable[[], Rotation] | None = None
    token_ids: Tensor | None = None
    memory: dict[Hashable, dict[int, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.scaling is None:
            self.scaling = self.queries.shape[-1] ** -0.5
        self._shared: dict[Hashable, Any] = {}
        self._last_queries: Tensor | None = None

    @property
    def length(self) -> int:
        """Prompt tokens L."""
        return self.keys.shape[1]

    @property
    def kv_heads(self) -> int:
        """Key/value heads Hkv."""
        return self.keys.shape[0]

    def make_statistics(self, needs: Needs) -> None:
        """Make the sums, unless they were made beside the attention."""
        if self.statistics is None:
            self.statistics = self.statistics_of(needs)

    def statistics_of(self, needs: Needs) -> Statistics:
        """The sums over the layer's attention weights, made anew."""
        assert self.scaling is not None
        if self.real is not None:
            return self.real.statistics(self.queries, self.keys, needs, self.scaling)
        return attention_statistics(self.queries, self.keys, needs, scaling=self.scaling, log_sum_exp=self.log_sum_exp)

    def logits(self, first: int = 0) -> Iterator[tuple[int, Tensor]]:
        """Q Kᵀ · scaling of the queries from `first` on, computed anew in blocks, −∞ where a query does not see a key.

        Yields:
            The block's first query and its logits (Hq, rows, K) float32 on the first K keys, which may be overwritten;
            `softmax` makes attention weights of them.
        """
        assert self.scaling is not None
        if self.real is not None:
            return self.real.logits(self.queries, self.keys, self.scaling, first=first)
        return causal_logits(self.queries, self.keys, self.scaling, first=first)

    def softmax(self, logits: Tensor) -> Tensor:
        """Attention weights of logits (Hq, rows, K)."""
        return logits.softmax(-1) if self.real is None else self.real.softmax(logits)

    @property
    def sums(self) -> Tensor:
        """S_j = Σ_i A[i, j], (Hq, L) float32; `Needs(sums=True)`."""
        assert self.statistics is not None
        assert self.statistics.sums is not None, "the strategy's needs() must ask for sums"
        return self.statistics.sums

    @property
    def squares(self) -> Tensor:
        """Σ_i A[i, j]², (Hq, L) float32; `Needs(squares=True)`."""
        assert self.statistics is not None
        assert self.statistics.squares is not None, "the strategy's needs() must ask for squares"
        return self.statistics.squares

    def window(self, w: int) -> Tensor:
        """W_j(w) = Σ A[i, j] over the last w queries, (Hq, L) float32; `Needs(windows=frozenset({w}))`."""
        assert self.statistics is not None
        return self.statistics.windows[w]

    def rotary(self) -> Rotation:
        """The rotary embedding of queries and keys.

        Raises:
            LookmError: where the layer has none that is known.
        """
        if self.rotation is not None:
            return self.rotation()
        return Rotation.standard(self.length, self.keys.shape[-1], self.keys.device)

    def head(self, number: int) -> "Layer":
        """The layer with one key/value head and its query heads alone."""
        group = self.queries.shape[0] // self.kv_heads
        own = slice(number * group, (number + 1) * group)
        head = copy(self)
        head.queries, head._shared = self.queries[own], {}
        head.keys, head.values = self.keys[number : number + 1], self.values[number : number + 1]
        head.real = None if self.real is None else self.real.of_heads(own)
        head.log_sum_exp = None if self.log_sum_exp is None else self.log_sum_exp[own]
        head.statistics = None if self.statistics is None else self.statistics.of_heads(own)
        return head

    @classmethod
    def joined(cls, layers: Sequence["Layer"]) -> "Layer":
        """Prompts of one layout as one with the heads of all; its rotary embedding and token ids are nobody's."""
        first = layers[0]
        queries, keys, values = (
            torch.cat(parts) for parts in zip(*((x.queries, x.keys, x.values) for x in layers), strict=True)
        )
        logarithms = [x.log_sum_exp for x in layers if x.log_sum_exp is not None]
        made = [x.statistics for x in layers if x.statistics is not None]
        joined = cls(queries, keys, values, first.is_image, first.scaling, index=first.index, n_layers=first.n_layers)
        joined.log_sum_exp = torch.cat(logarithms) if len(logarithms) == len(layers) else None
        joined.statistics = Statistics.joined(made) if len(made) == len(layers) else None
        return joined

    def per_kv_head(self, scores: Tensor) -> Tensor:
        """Average the scores of one group's query heads: (Hq, …) → (Hkv, …)."""
        return scores.unflatten(0, (self.kv_heads, -1)).mean(1)

    def column_sums(self) -> Tensor:
        """S_j, the score of H2O and LOOK-M (Eq. 4), (Hkv, L) float32."""
        return self.shared("column sums", lambda: self.per_kv_head(self.sums))

    def shared(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, called once for all strategies that ask for `key` of this prompt in this layer."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def last_queries(self, n: int) -> Tensor:
        """The last n ≤ `LAST_QUERIES` queries, (Hq, n or fewer, D): also after the others were forgotten."""
        queries = self.queries if self._last_queries is None else self._last_queries
        return queries[:, -n:]

    def forget_queries(self) -> None:
        """Let go of what only statistics are made from, where the layer is held until the prompt's end."""
        self._last_queries = self.queries[:, -LAST_QUERIES:].clone()
        self.queries = self.queries.new_empty(self.queries.shape[0], 0, self.queries.shape[-1])
        self.log_sum_exp = self.real = None

    def remember(self, key: Hashable, value: Any) -> None:
        """Leave a value of this layer for later ones; strategies that choose equal keys share it."""
        self.memory.setdefault(key, {})[self.index] = value

    def earlier(self, key: Hashable, n: int) -> list[Any]:
        """What the n layers before this one left under `key`, the nearest last; fewer where there are fewer."""
        left = self.memory.get(key, {})
        return [left[index] for index in range(self.index - n, self.index) if index in left]

    def all_layers(self, key: Hashable) -> list[Any]:
        """What every layer left under `key`, in order: for a choice after the whole prompt."""
        return [self.memory[key][index] for index in range(self.n_layers)]
