"""A short measurement of what runs will cost on this machine."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.planning.plan import Estimate, PlannedRun
from benchmarks.trials.residence import resident_bytes
from lookm.errors import LookmError

if TYPE_CHECKING:
    from benchmarks.evaluation.preparation import Dataset
    from lookm.models.backbone import Backbone


def measure(runs: Sequence[PlannedRun], *, batches: int = 3, seed: int = 0) -> Estimate:
    """Times a few batches under all strategies of a group, and under one alone, on this machine.

    Args:
        runs: runs of one model that select the same samples.
        batches: how many to time, after one that is not timed.
        seed: draws them.

    Raises:
        LookmError: no weights or no data.
    """
    import torch

    from benchmarks.evaluation.asking import answer
    from benchmarks.evaluation.loading import load_backbone
    from benchmarks.evaluation.preparation import read_datasets
    from benchmarks.evaluation.reading import read_units

    first = runs[0].settings
    backbone = load_backbone(first)
    datasets = read_datasets(first)
    tokens = {dataset.info.dataset: _prompt_tokens(dataset, backbone) for dataset in datasets}
    drawn = random.Random(seed)
    strategies = [run.settings.strategy for run in runs]
    seconds = {1: 0.0, len(strategies): 0.0}
    timed = 0
    for number in range(batches + 1):
        dataset = drawn.choice([dataset for dataset in datasets if tokens[dataset.info.dataset]])
        name = drawn.choice(sorted(tokens[dataset.info.dataset]))
        root = first.benchmark.root
        unit = next(iter(read_units([dataset], {dataset.info.dataset: {name}}, backbone, root)))
        for size in seconds:
            began = time.perf_counter()
            for part in unit.parts:
                answer(backbone, strategies[-size:], dataset, part, root=root)
            if number:
                seconds[size] += time.perf_counter() - began
        if number:
            timed += sum(
                tokens[dataset.info.dataset][sample.sample_id] for part in unit.parts for sample in part.samples
            )
    if not timed:
        raise LookmError("none of the drawn samples can be read, so nothing can be measured; see the data")
    per_token = {size: spent / timed for size, spent in seconds.items()}
    total = sum(sum(lengths.values()) for lengths in tokens.values())
    share = [run.left / max(1, run.selected) for run in runs]
    on_gpu = first.device.startswith("cuda")
    peak = torch.cuda.max_memory_allocated(first.device) if on_gpu else resident_bytes("VmHWM")
    basis = (
        f"measured on {first.device}: {batches} batches of {backbone.batch_size}, {timed} prompt tokens; "
        f"the {len(datasets)} datasets have {total}",
    )
    return Estimate(per_token[len(strategies)] * total * max(share), per_token[1] * total * sum(share), peak, basis)


def _prompt_tokens(dataset: Dataset, backbone: Backbone) -> dict[str, int]:
    """Tokens of the prompts of a dataset's selected samples, by id."""
    from benchmarks.evaluation.preparation import Prepared, prepare_prompts

    prompts = prepare_prompts(
        dataset,
        list(dataset.samples),
        tokenizer=backbone.tokenizer,
        max_context_len=backbone.max_context_len,
        n_tokens_per_image=backbone.n_tokens_per_image,
    )
    return {item.sample_id: item.tokens for item in prompts if isinstance(item, Prepared)}
