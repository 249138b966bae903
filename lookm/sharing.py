"""One prompt in one layer under many strategies: what several of them need is computed once.

Statistics are made for the joined needs of all strategies; strategies that choose alike share one kept set, and with
it the evicted tokens' matches and the sums that merging combines. Every result equals, bit for bit, what the strategy
gets alone: nothing that is computed for one strategy depends on which others are there.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from lookm.errors import BudgetError
from lookm.importance import Needs, Statistics, attention_statistics
from lookm.merging import KeptSet
from lookm.stopwatch import Mark, Stopwatch

if TYPE_CHECKING:
    from lookm.strategy import Strategy


@dataclass(frozen=True)
class CompressedRow:
    """One prompt's cache in one layer: keys (Hkv, K, D), values (Hkv, K, Dv), positions (Hkv, K) int64 ascending.

    Rows that come from one call may share memory with each other and with the full cache: do not write into them.
    """

    keys: Tensor
    values: Tensor
    positions: Tensor


@dataclass
class Stages:
    """Where the time of compressing goes; one collector may be passed to any number of calls."""

    statistics: Stopwatch = field(default_factory=Stopwatch)
    choice: Stopwatch = field(default_factory=Stopwatch)
    merge: Stopwatch = field(default_factory=Stopwatch)


def compress_many(
    strategies: Sequence["Strategy"],
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    is_image: Tensor,
    *,
    scaling: float | None = None,
    log_sum_exp: Tensor | None = None,
    statistics: Statistics | None = None,
    stages: Stages | None = None,
) -> list[CompressedRow]:
    """Compress one prompt in one layer under each of several strategies.

    Args:
        strategies: any number, in any mixture of budgets and semantics.
        queries: (Hq, L, D), after the rotary embedding, any floating dtype.
        keys: (Hkv, L, D); Hq is a multiple of Hkv.
        values: (Hkv, L, Dv).
        is_image: (L,) bool, on the same device. Hand the same tensor to every layer: what is read from it on the host
            is then read once a prompt.
        scaling: factor on Q Kᵀ, by default 1 / √D.
        log_sum_exp: log Σ_j exp(scaling · q_i · k_j) over the keys that query i sees, (Hq, L) float32, as the
            attention kernel computed it; None: it is computed here.
        statistics: of this prompt and layer, if they were made beside its attention: all of `joined_needs`; None: they
            are made here.
        stages: collects the time of statistics, choice and merge.

    Returns:
        The compressed rows in the order of `strategies`.

    Raises:
        BudgetError: if a result is not what its strategy promises.
    """
    heads, length, _ = keys.shape
    rows: list[CompressedRow | None] = [None] * len(strategies)
    groups: dict[Hashable, list[int]] = {}
    for index, strategy in enumerate(strategies):
        if strategy.promised_tokens(is_image) == length:
            everything = torch.arange(length, device=keys.device).expand(heads, -1)
            rows[index] = CompressedRow(keys, values, everything)
        else:
            groups.setdefault(strategy.selection_key(length), []).append(index)
    if not groups:
        return [row for row in rows if row is not None]

    lap = _Lap(stages, keys.device)
    if statistics is None:
        needs = joined_needs(strategies, is_image)
        statistics = attention_statistics(queries, keys, needs, scaling=scaling, log_sum_exp=log_sum_exp)
    lap.ends("statistics")
    choices = {key: strategies[members[0]].keep(statistics, is_image) for key, members in groups.items()}
    checked = [(strategies[index], choices[key]) for key, members in groups.items() for index in members]
    check_choices(checked, is_image, heads)
    lap.ends("choice")
    for key, members in groups.items():
        kept = choices[key]
        kept_set = KeptSet(keys, values, kept)
        for index in members:
            rows[index] = CompressedRow(*strategies[index].merge_into(kept_set), kept)
        lap.ends("merge")
    return [row for row in rows if row is not None]


def joined_needs(strategies: Sequence["Strategy"], is_image: Tensor) -> Needs:
    """The statistics that the strategies which evict anything of a prompt, is_image (L,) bool, read together."""
    length = is_image.numel()
    evicting = (strategy for strategy in strategies if strategy.promised_tokens(is_image) < length)
    return reduce(or_, (strategy.needs(length) for strategy in evicting), Needs())


def check_choices(choices: Sequence[tuple["Strategy", Tensor]], is_image: Tensor, heads: int) -> None:
    """`Strategy.check_kept` for several choices of one prompt, waiting for the device once."""
    suspicions = []
    for strategy, kept in choices:
        promised = strategy.promised_tokens(is_image)
        if kept.shape != (heads, promised):
            raise BudgetError(
                f"{strategy.name} kept {tuple(kept.shape)} (heads, tokens) of {is_image.numel()} tokens; "
                f"its definition promises {(heads, promised)}"
            )
        suspicions += [(wrong, f"{strategy.name} {said}") for wrong, said in strategy.broken_promises(kept, is_image)]
    if suspicions:
        for wrong, said in zip(torch.stack([wrong for wrong, _ in suspicions]).tolist(), suspicions, strict=True):
            if wrong:
                raise BudgetError(said[1])


class _Lap:
    """Counts the time since the last stage's end to the stage that ends; does nothing without a collector."""

    def __init__(self, stages: Stages | None, device: torch.device) -> None:
        self.stages, self.device = stages, device
        self.begin = Mark.now(device) if stages else None

    def ends(self, stage: Literal["statistics", "choice", "merge"]) -> None:
        if self.stages is None or self.begin is None:
            return
        end = Mark.now(self.device)
        getattr(self.stages, stage).add(self.begin, end)
        self.begin = end
