"""Prefills: what compressing adds to plain SDPA, in time and in peak memory, and what eager attention would cost."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..prefill_memory import prefill, run_variant
from .clock import in_turns
from .shapes import prompt_ids
from .workplace import Workplace, attempted

STRATEGIES = ("h2o", "snapkv", "roco", "tp", "tp_pmerge")


def peak_mib(place: Workplace, variant: str, length: int, work: Callable[[], object]) -> float | None:
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
    argv = [*map(str, sizes), str(text["num_attention_heads"]), "--length", str(length)]
    return round(run_variant(variant, argv) / 2**20, 1)


def prefill_overheads(place: Workplace) -> Iterator[dict[str, Any]]:
    """Time and peak memory of each variant at each length, and both by those of the plain prefill."""
    for length in place.sizes.prefill_lengths:
        yield from _at_length(place, length, prompt_ids(place.shape, 1, length, place.device))


def _at_length(place: Workplace, length: int, ids: Tensor) -> Iterator[dict[str, Any]]:
    def fits(work: Callable[[], object]) -> dict[str, Any]:
        work()
        return {}

    works: dict[str, Callable[[], object]] = {}
    for name in ("plain", *STRATEGIES, "eager"):
        work = partial(prefill, place.model, name, ids)
        row = attempted(place, {"length": length, "batch": 1, "variant": name}, partial(fits, work))
        if "skipped" in row:
            yield row
        else:
            works[name] = work
    times = in_turns(works, place.device, place.sizes.repeats)
    peaks = {name: peak_mib(place, name, length, work) for name, work in works.items()}
    plain = peaks.get("plain")
    for name, row in times.items():
        peak = peaks[name]
        share = round(peak / plain, 4) if peak and plain else None
        yield {"length": length, "batch": 1, "variant": name, **row, "peak_mib": peak, "peak_times_first": share}
