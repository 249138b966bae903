"""Cascading KV cache (arXiv 2406.17808): sub-caches each accepting every other token that the one before lets go.

The authors fill the cascade while the prompt is read in strides; here the prompt is attended to as a whole, and its
tokens pass the cascade with the averages that they have at its end. Averages are those of a group's query heads.
"""

from dataclasses import dataclass
from math import ceil, exp, log
from typing import ClassVar

import torch
from torch import Tensor

from lookm.decoding import DecodingStrategy
from lookm.held import Held
from lookm.layer import Layer

NEGLIGIBLE = 2.0**-24
"""Weights of the moving average below it are left out."""


@dataclass(frozen=True)
class _Cascade:
    """The sub-caches of W tokens in all: W − (C − 1) · (W // C) and C − 1 times W // C, most recent first."""

    tokens: int
    caches: int

    def compared(self, step: int) -> tuple[int, int]:
        """Which of the W + 1 most recent tokens, 0 for a new one, are compared when it comes as the step-th, from 0.

        Sub-cache i accepts every 2^i steps. The first that does not compares what would enter with its newest token;
        where all accept, the oldest token goes, (W, W). Until the cascade is full, all accept.
        """
        each = self.tokens // self.caches
        first = self.tokens - (self.caches - 1) * each
        for i in range(1, self.caches):
            if step > self.tokens and step % 2**i:
                incoming = first + (i - 1) * each
                return incoming, incoming + 1
        return self.tokens, self.tokens


@dataclass(frozen=True, kw_only=True)
class Cascading(DecodingStrategy):
    """Keep `sinks` first tokens and a cascade of the others, M + N in all, while decoding, too.

    Of two tokens the one that received less attention goes, by the moving average μ ← β μ + (1 − β) A[i, j] with
    β = exp(−ln 100 / W), W the cascade's tokens.

    Attributes:
        sinks: first tokens that are kept; the last token stays even where they fill the budget.
        caches: sub-caches C; fewer where the budget has fewer tokens.
    """

    compresses_text_only: ClassVar[bool] = True
    reads_attention: ClassVar[bool] = True

    sinks: int = 4
    caches: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_count("sinks", self.sinks)
        self._check_positive("caches", self.caches)

    def _cascade(self, length: int) -> _Cascade:
        budget = sum(self.window_sizes(length))
        tokens = min(budget, max(1, budget - self.sinks))
        return _Cascade(tokens, max(1, min(self.caches, tokens)))

    def _beta(self, length: int) -> float:
        return exp(-log(100) / max(1, self._cascade(length).tokens))

    def promised_recent(self, length: int) -> int:
        cascade = self._cascade(length)
        return cascade.tokens - (cascade.caches - 1) * (cascade.tokens // cascade.caches)

    def keep(self, layer: Layer) -> Tensor:
        cascade, mu = self._cascade(layer.length), self._mu(layer).cpu()
        sinks = sum(self.window_sizes(layer.length)) - cascade.tokens
        heads = torch.arange(layer.kv_heads)
        order: list[Tensor] = []  # positions (Hkv,), the most recent first
        for position in range(sinks, layer.length):
            order.insert(0, torch.full_like(heads, position))
            if len(order) > cascade.tokens:
                entering, newest = (order[place] for place in cascade.compared(position - sinks))
                wins = mu[heads, entering] >= mu[heads, newest]
                place = cascade.compared(position - sinks)[0]
                order[place : place + 2] = [torch.where(wins, entering, newest)] if place < cascade.tokens else []
        kept = torch.stack([*(torch.full_like(heads, sink) for sink in range(sinks)), *order[::-1]], dim=1)
        return kept.to(layer.keys.device)

    def _mu(self, layer: Layer) -> Tensor:
        """The moving average of each token's attention after the prompt's last query, (Hkv, L) float32."""
        beta = self._beta(layer.length)
        return layer.shared((type(self), beta), lambda: self._averages(layer, beta))

    def _averages(self, layer: Layer, beta: float) -> Tensor:
        first = max(0, layer.length - ceil(log(NEGLIGIBLE) / log(beta)))
        mu = layer.queries.new_zeros(layer.queries.shape[0], layer.length, dtype=torch.float32)
        for start, logits in layer.logits(first):
            age = layer.length - 1 - torch.arange(start, start + logits.shape[1], device=mu.device)
            share = (1 - beta) * beta**age
            mu[:, : logits.shape[2]] += (layer.softmax(logits) * share[:, None]).sum(1)
        return layer.per_kv_head(mu)

    def held_tokens(self, length: int, kept: int, seen: int) -> int:
        return kept

    def notes(self, layer: Layer, positions: Tensor) -> dict[str, Tensor]:
        return {"mu": self._mu(layer).gather(1, positions)}

    def step(self, held: Held) -> Tensor:
        device = held.positions.device
        beta = torch.tensor([self._beta(length) for length in held.lengths], device=device)[:, None, None]
        mu = held.note("mu").mul_(beta).add_((1 - beta) * held.weights)
        sinks, places = [], []
        for length, kept, seen in zip(held.lengths, held.kept, held.seen, strict=True):
            cascade = self._cascade(length)
            sinks.append(kept - cascade.tokens)
            places.append(cascade.compared(seen - 1 - sinks[-1]))
        behind = held.positions.masked_fill(held.positions < torch.tensor(sinks, device=device)[:, None, None], -1)
        ranked = behind.argsort(dim=-1, descending=True, stable=True)  # the most recent first
        index = torch.tensor(places, device=device)[:, None].clamp_max(ranked.shape[-1] - 1)
        slots = ranked.gather(-1, index.expand(-1, ranked.shape[1], -1))  # [B, Hkv, 2]
        entering, newest = mu.gather(-1, slots).unbind(-1)
        return torch.where(entering >= newest, slots[..., 1], slots[..., 0])
