"""Prefills: what compressing adds to plain SDPA, in time and in peak memory, and what eager attention would cost."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

from lookm import look_once

from ..prefill_memory import eager_scores, run_variant
from .clock import in_turns
from .shapes import prompt_ids
from .workplace import Workplace, is_out_of_memory, skipped

STRATEGIES = ("h2o", "snapkv", "roco", "tp", "tp_pmerge")
EAGER = "eager_scores"


def prefill_work(place: Workplace, variant: str, ids: Tensor) -> Callable[[], object]:
    """One prefill of a variant: "plain", "eager" as the release does it, or a strategy inside `look_once`."""
    model = place.model

    def plain(attention: str) -> None:
        model.set_attn_implementation({"text_config": attention})
        with torch.inference_mode():
            model(input_ids=ids, use_cache=True, logits_to_keep=1)

    def compressed() -> None:
        model.set_attn_implementation({"text_config": "sdpa"})
        with look_once(model, variant), torch.inference_mode():
            model(input_ids=ids, use_cache=True, logits_to_keep=1)

    if variant in ("plain", "eager"):
        return partial(plain, EAGER if variant == "eager" else "sdpa")
    return compressed


def peak_mib(place: Workplace, variant: str, work: Callable[[], object]) -> float | None:
    """Peak memory of one prefill above what was held before it, in MiB.

    On a GPU it is what the allocator counted. On a CPU a fresh process prefills the model's decoder alone; None for
    variants that are not measured there.
    """
    if place.on_gpu:
        place.empty()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        torch.cuda.synchronize()
        return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)
    if variant not in ("plain", "h2o", "tp_pmerge", "eager"):
        return None
    text = place.shape.text
    sizes = ("--layers", text["num_hidden_layers"], "--width", text["hidden_size"], "--heads")
    argv = [*map(str, sizes), str(text["num_attention_heads"]), "--length", str(place.sizes.length)]
    return round(run_variant(variant, argv) / 2**20, 1)


def prefill_overheads(place: Workplace) -> Iterator[dict[str, Any]]:
    """Time and peak memory of each variant, and both by those of the plain prefill."""
    AttentionInterface.register(EAGER, eager_scores)
    AttentionMaskInterface.register(EAGER, eager_mask)
    ids = prompt_ids(place.shape, 1, place.sizes.length, place.device)
    case = {"length": place.sizes.length, "batch": 1}
    works = {name: prefill_work(place, name, ids) for name in ("plain", *STRATEGIES, "eager")}
    try:
        works["eager"]()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        del works["eager"]
        yield skipped({**case, "variant": "eager"}, error)
    times = in_turns(works, place.device, place.sizes.repeats)
    peaks = {name: peak_mib(place, name, work) for name, work in works.items()}
    place.model.set_attn_implementation({"text_config": "sdpa"})
    plain = peaks["plain"]
    for name, row in times.items():
        peak = peaks[name]
        share = round(peak / plain, 4) if peak and plain else None
        yield {**case, "variant": name, **row, "peak_mib": peak, "peak_times_first": share}
