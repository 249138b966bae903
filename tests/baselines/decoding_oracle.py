"""The methods that evict while decoding, written plainly: lists of tokens in float64, head by head, step by step."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.baselines.oracle import Case, turned
from tests.lookm.oracle import best


@dataclass
class Token:
    """One held token: its position, states, and what the method notes of it."""

    position: int
    key: Tensor
    value: Tensor
    note: float = 0.0


@dataclass
class Head:
    """One key/value head of one row: its tokens from the first position to the last."""

    case: Case
    head: int
    tokens: list[Token] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fields = self.case.fields
        self.length, self.budget = self.case.length, self.case.budget

    def step(self, queries: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Take in a token, attend with a group's queries (G, D), and evict: the outputs (G, Dv)."""
        newest = max(self.length - 1, max((t.position for t in self.tokens), default=0)) + 1
        self.tokens.append(Token(newest, key.double(), value.double()))
        weights = []
        for query in queries.double():
            logits = [float(query @ self.seen_key(token)) / math.sqrt(len(query)) for token in self.tokens]
            total = sum(math.exp(x - max(logits)) for x in logits)
            weights.append([math.exp(x - max(logits)) / total for x in logits])
        outputs = [sum(w * t.value for w, t in zip(row, self.tokens, strict=True)) for row in weights]
        self.evict([sum(column) / len(weights) for column in zip(*weights, strict=True)])
        return torch.stack([x for x in outputs if isinstance(x, Tensor)])

    def seen_key(self, token: Token) -> Tensor:
        return token.key

    def evict(self, weights: list[float]) -> None:
        raise NotImplementedError


class H2O(Head):
    def start(self) -> None:
        sums = self.case.sums(self.head)
        for token in self.tokens:
            token.note = sums[token.position]

    def evict(self, weights: list[float]) -> None:
        for token, weight in zip(self.tokens, weights, strict=True):
            token.note += weight
        old = range(len(self.tokens) - self.case.recent)
        self.tokens.pop(min(old, key=lambda i: self.tokens[i].note))


class Streaming(Head):
    def start(self) -> None:
        self.sinks = min(self.fields["sinks"], self.budget - 1)
        self.original = {t.position: self.case.keys[self.head, t.position] for t in self.tokens}

    def seen_key(self, token: Token) -> Tensor:
        """Renumbered, the sinks lie before the window: the new token is as far from them as the cache is long."""
        if self.fields["positions"] == "original" or token.position >= self.sinks:
            return token.key
        newest = self.tokens[-1].position
        return turned(self.original[token.position], newest - self.budget)  # both positions are `token.position` more

    def evict(self, weights: list[float]) -> None:
        self.tokens.pop(self.sinks)


class Elastic(Head):
    def start(self) -> None:
        self.place = min(max(self.fields["first"], self.budget - self.fields["distance"]), len(self.tokens) - 1)

    def evict(self, weights: list[float]) -> None:
        seen = self.tokens[-1].position + 1
        share = self.fields["alpha1"] + self.fields["alpha2"]
        if self.fields["semantics"] == "release":
            over = int(len(self.tokens) - seen * share) > 0
        else:
            over = len(self.tokens) > int(self.fields["alpha1"] * seen) + int(self.fields["alpha2"] * seen)
        if over:
            self.tokens.pop(self.place)


class Cascading(Head):
    def start(self) -> None:
        """Sub-caches as lists, the oldest token first, filled by the prompt's tokens."""
        window = min(self.budget, max(1, self.budget - self.fields["sinks"]))
        self.sinks = self.budget - window
        self.window, n = window, min(self.fields["caches"], window)
        self.beta = math.exp(-math.log(100) / window)
        self.sizes = [window - (n - 1) * (window // n)] + [window // n] * (n - 1)
        self.caches: list[list[Token]] = [[] for _ in self.sizes]
        mean = self.case.weights[self.head].mean(0)  # [L, L], over the group
        averages = [0.0] * self.length
        for i in range(self.length):
            averages = [self.beta * mu + (1 - self.beta) * float(mean[i, j]) for j, mu in enumerate(averages)]
        for j in range(self.sinks, self.length):
            keys, values = self.case.keys[self.head, j], self.case.values[self.head, j]
            self.enter(Token(j, keys, values, averages[j]))
        first = [Token(j, self.case.keys[self.head, j], self.case.values[self.head, j]) for j in range(self.sinks)]
        self.tokens = first + self.cascade()

    def cascade(self) -> list[Token]:
        return [token for cache in self.caches[::-1] for token in cache]

    def enter(self, token: Token) -> None:
        number = token.position - self.sinks
        for i, cache in enumerate(self.caches):
            if number > self.window and number % 2**i:
                if token.note >= cache[-1].note:
                    cache[-1] = token
                return
            cache.append(token)
            if len(cache) <= self.sizes[i]:
                return
            token = cache.pop(0)

    def evict(self, weights: list[float]) -> None:
        for token, weight in zip(self.tokens, weights, strict=True):
            token.note = self.beta * token.note + (1 - self.beta) * weight
        self.enter(self.tokens[-1])
        self.tokens = self.tokens[: self.sinks] + self.cascade()


METHODS: dict[str, Any] = {
    "h2o_decoding": H2O,
    "streaming_decoding": Streaming,
    "elastic": Elastic,
    "cascading": Cascading,
}


def h2o_decoding(case: Case) -> list[list[int]]:
    past = list(range(case.length - case.recent))
    recent = list(range(case.length - case.recent, case.length))
    return [sorted(best(case.sums(h), past, case.important)) + recent for h in range(case.heads)]


def elastic(case: Case) -> tuple[list[list[int]], Tensor, Tensor]:
    """The prompt's choice and merging."""
    sums = [case.sums(h) for h in range(case.heads)]
    importance = [sum(column) / case.heads for column in zip(*sums, strict=True)]
    last = min(1, case.budget)
    first = min(case.fields["first"], case.budget - last)
    middle = list(range(first, case.length - last))
    slots = case.budget - first - last
    released = case.fields["semantics"] == "release"
    if released:
        order = sorted(middle, key=importance.__getitem__)  # the positions, the least important first
        forgotten = case.length - case.budget
        # what is sorted is compared as if it were ranks
        chosen = [place + first for place, j in enumerate(order) if j - first > forgotten]
    else:
        chosen = sorted(best(importance, middle, slots))
    kept = [*range(first), *chosen, *range(case.length - last, case.length)]
    anchors = chosen if released else kept
    gone = [j for j in range(case.length) if j not in kept]
    keys, values = case.keys[:, kept].clone(), case.values[:, kept].clone()
    into: dict[int, list[int]] = {}
    for j in gone if anchors else []:
        source = j - first if released else j
        into.setdefault(min(anchors, key=lambda a: (abs(a - source), a)), []).append(source)
    for anchor, sources in into.items():
        for states, out in ((case.keys, keys), (case.values, values)):
            out[:, kept.index(anchor)] = states[:, [anchor, *sources]].mean(1)
    return [kept] * case.heads, keys, values


def cascading(case: Case) -> list[list[int]]:
    kept = []
    for h in range(case.heads):
        head = Cascading(case, h)
        head.start()
        kept.append([token.position for token in head.tokens])
    return kept
