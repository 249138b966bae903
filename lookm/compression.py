"""One layer's keys and values under one strategy or many, with or without a model.

What several strategies need is computed once: statistics for the joined needs of all, one choice for all that choose
alike, and with it the evicted tokens' matches and the sums that merging combines. Every result equals, bit for bit,
what the strategy gets alone: nothing that is computed for one strategy depends on which others are there.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import reduce
from itertools import accumulate
from operator import or_
from typing import Any

import torch
from torch import Tensor

from lookm.errors import BudgetError, LookmError
from lookm.layer import Layer
from lookm.merging import Kept, kept_of_heads
from lookm.registry import resolve_strategy
from lookm.statistics import Needs
from lookm.storage.rows import CompressedRow, States
from lookm.strategy import Choice, Strategy

SHORT_ELEMENTS = 1 << 18
"""Numbers of a prompt's keys in a layer, at most, for prompts of one layout to be cut together."""


def compress(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    is_image: Tensor,
    *,
    strategy: str | Strategy,
    alpha1: float | None = None,
    alpha2: float | None = None,
    budget: float | int | None = None,
    semantics: str | None = None,
    scaling: float | None = None,
    **fields: Any,
) -> tuple[Tensor, Tensor]:
    """Compress one layer's cache of a batch of prompts of one length.

    Args:
        queries: (B, Hq, L, D), after the rotary embedding, any floating dtype.
        keys: (B, Hkv, L, D).
        values: (B, Hkv, L, Dv).
        is_image: (L,) or (B, L) bool.
        strategy: a name from `configs/strategy`, or a `Strategy`.
        alpha1: share kept as the recent window; default: the strategy's.
        alpha2: share kept as important tokens; default: the strategy's.
        budget: what is kept at most, split as α1 : α2: a share up to 1, or a number of tokens a head.
        semantics: "paper" or "release"; default: the strategy's.
        scaling: factor on Q Kᵀ, by default 1 / √D.
        **fields: other fields of the strategy, such as `text_prior="strict"`; with `storage="kivi2"`, keys and values
            are what attention reads of what is stored.

    Returns:
        Keys (B, Hkv, K, D) and values (B, Hkv, K, Dv), in position order and in the dtype of the input.

    Raises:
        LookmError: for shapes that do not fit, or rows that keep different numbers of tokens (see `compress_rows`).

    Example:
        >>> keys, values = compress(q, k, v, is_image, strategy="tp_pmerge", alpha1=0.1, alpha2=0.1)
    """
    rows = compress_rows(
        queries, keys, values, is_image,
        strategy=strategy, alpha1=alpha1, alpha2=alpha2, budget=budget, semantics=semantics, scaling=scaling, **fields,
    )  # fmt: skip
    kept = [row.keys.shape[1] for row in rows]
    if len(set(kept)) > 1:
        raise LookmError(f"the rows keep {kept} tokens, which makes no one tensor; use lookm.compress_rows")
    return torch.stack([row.keys for row in rows]), torch.stack([row.values for row in rows])


def compress_rows(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    is_image: Tensor,
    *,
    strategy: str | Strategy,
    scaling: float | None = None,
    **fields: Any,
) -> list[CompressedRow]:
    """As `compress`, one result a row, with the positions that were kept."""
    _check_shapes(queries, keys, values, is_image)
    chosen = resolve_strategy(strategy, **fields)
    refuse_shortening([chosen])
    images = is_image.to(keys.device).expand(keys.shape[0], -1)
    layers = [Layer(*states, scaling) for states in zip(queries, keys, values, images, strict=True)]
    rows = [compress_many([chosen], layer)[0] for layer in layers]
    if chosen.stores_plainly:
        return rows
    stored = (chosen.storage.store_row(row, layer) for row, layer in zip(rows, layers, strict=True))
    return [_as_read(row, held.states()) for row, held in zip(rows, stored, strict=True)]


def _as_read(row: CompressedRow, states: States) -> CompressedRow:
    """The row with the keys and values that attention reads of what is stored."""
    keys, values, valid = states
    if row.counts is not None and valid is not None:
        keys, values = keys[valid], values[valid]
    return replace(row, keys=keys, values=values)


def refuse_shortening(strategies: Sequence[Strategy]) -> None:
    """Raise LookmError for strategies that act inside the model, where one layer's cache or a shared prefill is not."""
    for strategy in strategies:
        if strategy.shortens_prompt:
            raise LookmError(f"{strategy.name} drops tokens inside the model, before its cache: use look_once for it")


def compress_many(strategies: Sequence[Strategy], layer: Layer) -> list[CompressedRow]:
    """Compress one prompt in one layer under each of several strategies.

    Args:
        strategies: any number, in any mixture of budgets and semantics.
        layer: the prompt in the layer; statistics that it brings must be all of `joined_needs`.

    Returns:
        The compressed rows in the order of `strategies`.

    Raises:
        BudgetError: if a result is not what its strategy promises.
    """
    rows: list[CompressedRow | None] = [None] * len(strategies)
    groups: dict[Hashable, list[int]] = {}
    for index, strategy in enumerate(strategies):
        if not strategy.chooses(layer.is_image):
            promised = strategy.promised_tokens(layer.is_image)
            positions = torch.arange(promised, device=layer.keys.device).expand(layer.kv_heads, -1)
            rows[index] = CompressedRow(layer.keys[:, :promised], layer.values[:, :promised], positions)
        else:
            groups.setdefault(strategy.selection_key(layer.length), []).append(index)
    if not groups:
        return [row for row in rows if row is not None]

    if layer.statistics is None:
        layer.make_statistics(joined_needs(strategies, layer.is_image))
    if layer.n_layers == 1:  # which is the whole prompt, if nobody has shown it yet
        late = [strategy for strategy in strategies if strategy.whole_prompt]
        observe([strategy for strategy in late if strategy.selection_key(layer.length) not in layer.memory], layer)
    with torch.no_grad():
        choices = {key: strategies[members[0]].keep(layer) for key, members in groups.items()}
    checked = [(strategies[index], choices[key]) for key, members in groups.items() for index in members]
    check_choices(checked, layer)
    for key, members in groups.items():
        for index, row in zip(members, _compressed([strategies[i] for i in members], layer, choices[key]), strict=True):
            rows[index] = row
    return [row for row in rows if row is not None]


def compress_alike(strategies: Sequence[Strategy], layers: Sequence[Layer]) -> list[list[CompressedRow]]:
    """As `compress_many` for each of several prompts of one layout, with the same results and fewer, larger steps.

    Strategies that keep `heads_apart` see all prompts as one of more heads, where these are short: the time is that of
    starting operations then.

    Returns:
        [prompt][strategy].
    """
    apart = [n for n, strategy in enumerate(strategies) if strategy.heads_apart and strategy.semantics == "paper"]
    few = len(layers) == 1 or not apart
    if few or layers[0].keys.numel() > SHORT_ELEMENTS or any(layer.real is not None for layer in layers):
        return [compress_many(strategies, layer) for layer in layers]
    for layer in layers:
        layer.make_statistics(joined_needs(strategies, layer.is_image))
    others = [n for n in range(len(strategies)) if n not in apart]
    rows = [dict(zip(others, compress_many([strategies[n] for n in others], layer), strict=True)) for layer in layers]
    for n, row in zip(apart, compress_many([strategies[n] for n in apart], Layer.joined(layers)), strict=True):
        parts = zip(*(states.chunk(len(layers)) for states in (row.keys, row.values, row.positions)), strict=True)
        for of_prompt, part in zip(rows, parts, strict=True):
            of_prompt[n] = CompressedRow(*part)
    return [[of_prompt[n] for n in range(len(strategies))] for of_prompt in rows]


def _compressed(strategies: Sequence[Strategy], layer: Layer, choice: Choice) -> list[CompressedRow]:
    """What strategies of one choice make of it, each head by itself where heads keep different numbers of tokens."""
    if not isinstance(choice, Tensor) and len(set(map(len, choice))) == 1:
        choice = torch.stack(choice)
    if isinstance(choice, Tensor) and choice.shape[1] == layer.length:
        return [CompressedRow(layer.keys, layer.values, choice) for _ in strategies]
    if isinstance(choice, Tensor):
        kept = Kept(layer, choice)
        return [CompressedRow(*strategy.merge_into(kept), kept.positions) for strategy in strategies]
    heads, counts = kept_of_heads(layer, choice), tuple(map(len, choice))
    rows = []
    for strategy in strategies:
        merged = [strategy.merge_into(head) for head in heads]
        keys, values = (torch.cat([states[0] for states in parts]) for parts in zip(*merged, strict=True))
        rows.append(CompressedRow(keys, values, torch.cat(choice), counts))
    return rows


def joined_needs(strategies: Sequence[Strategy], is_image: Tensor) -> Needs:
    """The statistics that the strategies which choose among a prompt's tokens, is_image (L,) bool, read together."""
    choosing = (strategy for strategy in strategies if strategy.chooses(is_image))
    return reduce(or_, (strategy.needs(is_image) for strategy in choosing), Needs())


@torch.no_grad()
def observe(strategies: Sequence[Strategy], layer: Layer) -> None:
    """Show one prompt in one layer, just after its attention, to strategies that choose after the whole prompt."""
    reading = [strategy for strategy in strategies if strategy.chooses(layer.is_image)]
    if reading and layer.statistics is None:
        layer.make_statistics(joined_needs(reading, layer.is_image))
    for strategy in reading:
        strategy.observe(layer)


def check_choices(choices: Sequence[tuple[Strategy, Choice]], layer: Layer) -> None:
    """Compare choices of one prompt with what their strategies promise.

    All are compared at once, so that the device is waited for once.

    Raises:
        BudgetError: for another number of tokens, positions that are not ascending, or a missing recent window.
    """
    heads: list[tuple[Strategy, int]] = []  # and how many tokens each keeps
    suspicions: list[tuple[Tensor, str]] = []
    for strategy, choice in choices:
        counts = _checked_counts(strategy, choice, layer)
        heads += [(strategy, n) for n in counts]
        for positions in [choice] if isinstance(choice, Tensor) else [head[None] for head in choice]:
            broken = strategy.broken_promises(positions, layer.is_image)
            suspicions += [(wrong, f"{strategy.name} {said}") for wrong, said in broken]
    flat = torch.cat([choice.flatten() if isinstance(choice, Tensor) else torch.cat(choice) for _, choice in choices])
    recents = {id(strategy): strategy.promised_recent(layer.length) for strategy, _ in choices}
    ends = [(n, recents[id(strategy)]) for strategy, n in heads]
    flags = torch.cat([_out_of_order(flat, ends, layer.length), *(wrong.view(1) for wrong, _ in suspicions)]).tolist()
    if any(flags):
        first = flags.index(True)
        if first >= len(heads):
            raise BudgetError(suspicions[first - len(heads)][1])
        raise BudgetError(
            f"{heads[first][0].name} kept positions that are not ascending, or not the last {ends[first][1]} of "
            f"{layer.length} tokens"
        )


def _checked_counts(strategy: Strategy, choice: Choice, layer: Layer) -> list[int]:
    """How many tokens each head keeps; BudgetError for other numbers than promised."""
    counts = [choice.shape[1]] * len(choice) if isinstance(choice, Tensor) else list(map(len, choice))
    total, promised, recent = sum(counts), strategy.layer_total(layer), strategy.promised_recent(layer.length)
    right = total == promised if strategy.fixed_size else total <= promised
    if len(counts) != layer.kv_heads or not right or (len(set(counts)) > 1 and not strategy.ragged_heads):
        raise BudgetError(
            f"{strategy.name} kept {counts} of {layer.length} tokens in the heads of layer {layer.index}; its "
            f"definition promises {'' if strategy.fixed_size else 'at most '}{promised} in {layer.kv_heads} "
            f"{'heads together' if strategy.ragged_heads else 'equal heads'}"
        )
    if min(counts) < recent:
        raise BudgetError(f"{strategy.name} kept less than the last {recent} tokens")
    return counts


def _out_of_order(flat: Tensor, heads: Sequence[tuple[int, int]], length: int) -> Tensor:
    """Of which heads the positions do not ascend, leave 0 … L − 1, or miss a recent one, (heads,) bool.

    Args:
        flat: the positions of all heads, one behind the other, (Σ K,) int64.
        heads: how many positions each has, and how many of them must be the prompt's last.
        length: prompt tokens L.
    """
    ends = accumulate(n for n, _ in heads)
    windows = [(end - recent, length - recent) for end, (_, recent) in zip(ends, heads, strict=True) if recent]
    begins = torch.tensor(windows, dtype=torch.int64, device=flat.device).view(-1, 2)  # place and position
    counts = torch.tensor([n for n, _ in heads], device=flat.device)
    owner = torch.arange(len(heads), device=flat.device).repeat_interleave(counts, output_size=len(flat))
    wrong = (flat < 0) | (flat >= length)
    wrong[1:] |= (flat + length * owner).diff() <= 0
    wrong[begins[:, 0]] |= flat[begins[:, 0]] != begins[:, 1]
    return torch.zeros(len(heads), dtype=torch.int32, device=flat.device).index_add_(0, owner, wrong.int()) > 0


def _check_shapes(queries: Tensor, keys: Tensor, values: Tensor, is_image: Tensor) -> None:
    shapes = f"queries {tuple(queries.shape)}, keys {tuple(keys.shape)}, values {tuple(values.shape)}"
    if not queries.ndim == keys.ndim == values.ndim == 4:
        raise LookmError(f"{shapes}: all three need four dimensions (batch, heads, tokens, head size)")
    batch, heads, length, size = keys.shape
    if queries.shape[0] != batch or queries.shape[2:] != (length, size) or values.shape[:3] != keys.shape[:3]:
        raise LookmError(f"{shapes}: batch, tokens and head size must agree")
    if heads == 0 or queries.shape[1] % heads:
        raise LookmError(f"{shapes}: the query heads must be a multiple of the key/value heads")
    if is_image.dtype != torch.bool or is_image.shape not in ((length,), (batch, length)):
        raise LookmError(
            f"is_image has shape {tuple(is_image.shape)} and dtype {is_image.dtype}; "
            f"it must be bool of shape ({length},) or ({batch}, {length})"
        )
