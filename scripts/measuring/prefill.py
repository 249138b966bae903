"""Prefills: what compressing adds to plain SDPA, in time and in peak memory, and what eager attention would cost."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, eager_mask
from transformers.models.llama.modeling_llama import eager_attention_forward

from lookm import look_once

from .workplace import SHAPES, Shape, Workplace, attempted, build, in_turns, prompt_ids

STRATEGIES = ("h2o", "snapkv", "roco", "p_merge", "tp", "tp_pmerge", "streaming", "knorm", "keydiff", "replay")
VARIANTS = (*STRATEGIES, "eager")
ON_CPU = ("plain", "h2o", "tp_pmerge", "replay", "eager")
"""Variants whose memory is measured on a CPU, where each needs a process of its own."""


def eager_scores(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Any, **kwargs: Any) -> Any:
    """Eager attention that sums its whole matrix over the queries, as the release does."""
    output, weights = eager_attention_forward(module, query, key, value, mask, **kwargs)
    module.column_sums = weights.sum(-2)
    return output, None


AttentionInterface.register("eager_scores", eager_scores)
AttentionMaskInterface.register("eager_scores", eager_mask)


def prefill(model: PreTrainedModel, variant: str, ids: Tensor) -> None:
    """One prefill of a variant: "plain", "eager" as the release does it, or a strategy inside `look_once`."""
    if variant == "eager":
        model.set_attn_implementation({"text_config": "eager_scores"})
    with torch.inference_mode(), nullcontext() if variant in ("plain", "eager") else look_once(model, variant):
        model(input_ids=ids, use_cache=True, logits_to_keep=1)
    if variant == "eager":
        model.set_attn_implementation({"text_config": "sdpa"})


def resident_bytes(field: str) -> int:
    """Memory of this process from Linux: now (`VmRSS`) or at its peak since it started (`VmHWM`).

    `getrusage` will not do: its peak begins with that of the process which started this one.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1]) * 1024


def peak_on_cpu(variant: str, shape: Shape, length: int) -> int:
    """Peak bytes of one prefill above what this process, which has done nothing else, held before it."""
    cpu = torch.device("cpu")
    model, ids = build(shape, cpu, torch.float32), prompt_ids(shape, 1, length, cpu)
    prefill(model, variant, ids[:, :256])  # warm-up: thread pools
    before = resident_bytes("VmRSS")
    prefill(model, variant, ids)
    return resident_bytes("VmHWM") - before


def peak_in_process(variant: str, shape: str, length: int) -> int:
    """`peak_on_cpu` in a fresh process."""
    command = [sys.executable, "-m", __spec__.name, variant, shape, str(length)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def peak_mib(place: Workplace, variant: str, length: int, work: Callable[[], object]) -> float | None:
    """Peak memory of one prefill above what was held before it, in MiB; None where it is not measured.

    On a GPU it is what the allocator counted.
    """
    if not place.on_gpu:
        peak = peak_in_process(variant, place.sizes.shape, length) if variant in ON_CPU else None
        return None if peak is None else round(peak / 2**20, 1)
    place.empty()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    torch.cuda.synchronize()
    return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


def prefill_overheads(place: Workplace) -> Iterator[dict[str, Any]]:
    """Time and peak memory of each variant at each length, and both by those of the plain prefill."""
    for length in place.sizes.prefill_lengths:
        yield from _at_length(place, length, prompt_ids(place.shape, 1, length, place.device))


def _at_length(place: Workplace, length: int, ids: Tensor) -> Iterator[dict[str, Any]]:
    def fits(work: Callable[[], object]) -> dict[str, Any]:
        work()
        return {}

    works: dict[str, Callable[[], object]] = {}
    for name in ("plain", *place.sizes.variants):
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


if __name__ == "__main__":
    print(peak_on_cpu(sys.argv[1], SHAPES[sys.argv[2]], int(sys.argv[3])))
