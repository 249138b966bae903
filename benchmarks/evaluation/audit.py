"""The recorded budgets of a run, checked once more against what its strategy promises, before results are written.

The engine raises `BudgetError` while a layer is compressed; this looks at what was written down, so that a number that
was lost, mixed up or made by an older program is found as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from math import isclose
from statistics import fmean
from typing import TYPE_CHECKING

from benchmarks.evaluation.records import SampleRecord
from lookm.errors import BudgetError

if TYPE_CHECKING:
    from lookm.strategy import Strategy

_ENOUGH = 8
"""Samples with images, all kept whole, at which a compression is called a no-op whatever it promises: a short prompt
whose images lie in the recent window may rightly be kept whole, a whole dataset of them may not."""


HEAD_OFFSETS = 8 * 1024
"""Bytes a layer may take beside its tokens and what is noted of them: 8 for each of 1,024 heads at most."""


def audit_records(
    strategy: Strategy, dataset: str, records: Iterable[SampleRecord], cache: Mapping[str, int] | None = None
) -> None:
    """Checks the answered samples of one dataset.

    Args:
        cache: `head_size` and `itemsize` of the model's cache, which tell what a storage promises; None: unknown.

    Raises:
        BudgetError: a sample kept more or less, in tokens or in bytes, than was promised, kept everything where less
            was promised, or its numbers contradict each other; or a compressing strategy kept every sample whole.
    """
    answered = [record for record in records if record.answered]
    for record in answered:
        fault = _fault(strategy, record) or _bytes_fault(strategy, record, cache)
        if fault:
            raise BudgetError(f"{dataset}, sample {record.sample_id}: {fault}; results are not written")
    with_images = [record for record in answered if record.image_tokens]
    whole = [record for record in with_images if set(record.kept_tokens) == {record.prompt_tokens}]
    nominal = 1.0 if strategy.nominal_budget is None else strategy.nominal_budget  # tokens: all of a short prompt
    if len(whole) >= _ENOUGH and len(whole) == len(with_images) and nominal < 1 and strategy.fixed_size:
        raise BudgetError(
            f"{dataset}: {strategy.name} kept all {len(whole)} prompts whole at a nominal budget of "
            f"{nominal:.0%}, which compresses nothing; results are not written"
        )


def _fault(strategy: Strategy, record: SampleRecord) -> str:
    """What is wrong with the numbers of one sample, in words; empty where nothing is."""
    length, kept = record.prompt_tokens, record.kept_tokens
    if length < 1 or not kept or record.image_tokens > length:
        return f"{length} prompt tokens, {record.image_tokens} image tokens and {len(kept)} layers are recorded"
    low, high = promised_range(strategy, length, record.image_tokens)
    promise = f"{low}" if low == high else f"{low} to {high}"
    if strategy.divides_budget and (max(kept) > length or not low <= round(fmean(kept), 6) <= high):
        return f"the layers kept {fmean(kept):.2f} of {length} tokens on their mean, {strategy.name} promises {promise}"
    for layer, tokens in enumerate(kept):
        if not strategy.divides_budget and not low <= tokens <= high:
            what = "nothing was compressed" if tokens == length else "more" if tokens > high else "less"
            return f"layer {layer} kept {tokens} of {length} tokens, {strategy.name} promises {promise} ({what})"
    mean = fmean(kept) / length
    if record.realised_budget is None or not isclose(record.realised_budget, mean, rel_tol=1e-6):
        return f"a realised budget of {record.realised_budget} is recorded, the layers kept {mean:.6f}"
    if record.full_bytes < 1 or not 0 <= record.kept_bytes <= record.full_bytes + _offsets(strategy, record):
        return f"{record.kept_bytes} kept bytes of {record.full_bytes} are recorded"
    return ""


def _bytes_fault(strategy: Strategy, record: SampleRecord, cache: Mapping[str, int] | None) -> str:
    """What is wrong with the bytes of one sample, whose tokens are right.

    Layers that stay as they are have other full bytes than the others, so that only samples whose layers all kept
    equally many tokens are held against the full bytes.
    """
    length, kept = record.prompt_tokens, record.kept_tokens
    if len(set(kept)) > 1:
        return ""
    if strategy.stores_plainly:
        excess = record.kept_bytes - record.full_bytes * kept[0] / length
        if 0 <= round(excess) <= _offsets(strategy, record):
            return ""
        return f"{record.kept_bytes} of {record.full_bytes} bytes do not fit to {kept[0]} of {length} tokens"
    if cache is None or strategy.ragged_heads:
        return ""
    size, itemsize = cache["head_size"], cache["itemsize"]
    heads, rest = divmod(record.full_bytes, 2 * length * size * itemsize)
    promised = heads * strategy.storage.head_bytes(int(kept[0]), size, itemsize)
    if rest or record.kept_bytes == promised:
        return ""
    return f"{record.kept_bytes} bytes are kept, {strategy.label} promises {promised} for {kept[0]} of {length} tokens"


def _offsets(strategy: Strategy, record: SampleRecord) -> int:
    """Bytes that a cache may hold beside keys and values: where each head's tokens begin, and what is noted of them."""
    smallest = 2 * 8 * 2  # bytes of a head's key and value: 8 channels of half precision
    noted = strategy.noted_bytes * fmean(record.kept_tokens) / record.prompt_tokens * record.full_bytes / smallest
    offsets = HEAD_OFFSETS * len(record.kept_tokens) if strategy.ragged_heads or strategy.noted_bytes else 0
    return offsets + round(noted)


@lru_cache(maxsize=4096)
def promised_range(strategy: Strategy, length: int, image_tokens: int) -> tuple[int, int]:
    """Fewest and most tokens that a strategy may keep of a prompt, wherever its images are.

    Where the images are matters to the union text prior only: text inside the recent window needs no further room.
    """
    import torch

    images_first = torch.arange(length) < image_tokens
    promises = [strategy.promised_tokens(layout) for layout in (images_first, images_first.flip(0))]
    return min(promises) if strategy.fixed_size else 0, max(promises)
