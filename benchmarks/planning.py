"""What a command will cost, before anything is spent: its jobs, what is done, time, memory, and samples needed.

Times and bytes of a GPU that is not here follow from the model's architecture and from what each strategy promises to
keep; every assumption is a constant below and is named in the output.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import NormalDist, fmean, variance
from typing import TYPE_CHECKING

from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.store import RunFolder
from lookm.errors import LookmError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from lookm.models.backbone import ImageShape
    from lookm.strategy import Strategy


@dataclass(frozen=True)
class Gpu:
    """A GPU by its data sheet: dense 16-bit tensor throughput in FLOP/s, bandwidth in bytes/s."""

    label: str
    flops: float
    bandwidth: float


GPUS = {
    "rtx3090": Gpu("RTX 3090", 71e12, 936e9),
    "rtx4090": Gpu("RTX 4090", 165e12, 1008e9),
    "a100": Gpu("A100 80 GB", 312e12, 2039e9),
    "h100": Gpu("H100 SXM", 989e12, 3350e9),
    "h200": Gpu("H200 SXM", 989e12, 4800e9),
}
DEFAULT_GPU = "a100"
COMPUTE_SHARE = 0.4
"""Assumed share of the data sheet's FLOP/s that a prefill reaches."""
BANDWIDTH_SHARE = 0.6
"""Assumed share of the data sheet's bandwidth that a decode step reaches."""
ANSWER_TOKENS = 64
"""Assumed tokens of a mean answer, where no run of the model tells."""
CHARACTERS_PER_TOKEN = 4.0
"""Assumed length of a text token, where there is no tokenizer."""
DISAGREEMENT = 0.2
"""Assumed share of samples on which two strategies score differently, where no pair of runs tells."""
_FEWEST_PAIRS = 30  # below, the normal approximation means little
_PROMPTS = 100  # so many prompts, spread evenly over the lengths, stand for all
_LARGE = 10**9  # parameters of a model that nobody runs on a CPU


@dataclass(frozen=True)
class PlannedRun:
    """One run: how many samples it selects, and how many of them have answers already."""

    settings: Settings
    selected: int
    done: int

    @property
    def left(self) -> int:
        """Samples that are still to be asked."""
        return max(0, self.selected - self.done)


@dataclass(frozen=True)
class Estimate:
    """What runs that are computed together will cost.

    Attributes:
        together: seconds, all their jobs in one process; apart: sum of the seconds with a process for each run.
        memory: peak bytes; of the GPU where there is one, else of the process.
    """

    together: float
    apart: float
    memory: float
    basis: tuple[str, ...]


def planned_runs(settings: Sequence[Settings]) -> tuple[list[PlannedRun], list[str]]:
    """The runs of a command, each once, and what is not known of them.

    Raises:
        LookmError: a folder whose samples are of another program, configuration or weights, which the command refuses.
    """
    from benchmarks.evaluation.examples import read_datasets
    from benchmarks.evaluation.provenance import weights_fingerprint

    runs: list[PlannedRun] = []
    unknown: dict[str, None] = {}
    for one in {one.folder: one for one in settings}.values():
        folder = RunFolder(one.folder)
        if folder.exists and not one.overwrite:
            folder.check(configuration=one.identity, weights=weights_fingerprint(one.model_config))
        try:
            one.benchmark.prepare()
            selected = {dataset.info.dataset: set(dataset.samples) for dataset in read_datasets(one)}
            total = sum(map(len, selected.values()))
        except LookmError as error:
            unknown[str(error)] = None
            selected = {}
            total = sum(min(info.samples, one.limit or info.samples) for info in one.datasets)
        done = 0
        for info in one.datasets:
            names = selected.get(info.dataset)
            records = {} if one.overwrite else folder.records(info.dataset)
            done += sum(record.answered and (names is None or name in names) for name, record in records.items())
        runs.append(PlannedRun(one, total, done))
    return runs, list(unknown)


def groups(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """The runs of which something is left, those together that `run.py -m` computes together."""
    from benchmarks.evaluation.run import group_runs

    left = [run for run in runs if run.left]
    return [[left[place] for place in part] for part in group_runs([run.settings for run in left])]


def needs_gpu(settings: Settings) -> bool:
    """Whether the model is too large for the CPU that it would be computed on."""
    from lookm.models.memory import blueprint

    try:
        return settings.device == "cpu" and sum(parameters_of(blueprint(settings.model_config)[0])) > _LARGE
    except LookmError:  # a model of its own, such as the tiny one
        return False


def parameters_of(model: PreTrainedModel) -> tuple[int, int]:
    """Parameters of the language model, with embeddings and projector, and of the vision tower."""
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    vision = sum(size for name, size in sizes.items() if {"vision_tower", "visual"} & set(name.split(".")))
    return sum(sizes.values()) - vision, vision


def prompt_seconds(
    model: PreTrainedModel,
    image: ImageShape,
    gpu: Gpu,
    strategies: Sequence[Strategy],
    *,
    tokens: int,
    images: int,
    answer_tokens: float,
    dtype: torch.dtype,
) -> tuple[float, float]:
    """Seconds of one prompt under several strategies: computed together, and each in a job of its own.

    Prefill: 2 FLOPs per parameter and token, and causal attention; compression: one more Q Kᵀ where anything is
    evicted; decode: the weights and what strategies promise to keep are read once per step. Together, the vision tower
    works once, and the language model once for all rows that join and once more for each that is decoded alone; a
    strategy that shortens its prompt shares nothing (and is counted with its whole prompt).

    Args:
        model: at full size, on the meta device; image: what one image is to it.
        tokens, images: of the prompt; image tokens are among the tokens.
    """
    from lookm.memory import cache_token_bytes
    from lookm.models.memory import prompt_of

    text = model.config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    language, vision = parameters_of(model)
    attention = 2 * tokens**2 * text.num_attention_heads * size * text.num_hidden_layers  # half of QKᵀ and of AV
    work = (2 * language * tokens + attention, attention / 2, 2 * vision * image.patches * images)
    prefill, statistics, tower = (flops / (gpu.flops * COMPUTE_SHARE) for flops in work)
    is_image = prompt_of(tokens, image.tokens, images)
    kept = [strategy.promised_tokens(is_image) for strategy in strategies]
    bandwidth = gpu.bandwidth * BANDWIDTH_SHARE
    weights = answer_tokens * language * dtype.itemsize / bandwidth
    read = cache_token_bytes(model.config, dtype) * sum(number + answer_tokens / 2 for number in kept)
    caches = answer_tokens * read / bandwidth
    joined: list[bool] = []  # whether each evicts
    alone: list[bool] = []
    for strategy, number in zip(strategies, kept, strict=True):
        joins = strategy.joins_sweeps and not strategy.shortens_prompt
        (joined if joins else alone).append(number < tokens)
    shortening = sum(strategy.shortens_prompt for strategy in strategies)
    together = (len(alone) + bool(joined)) * (prefill + weights) + (sum(alone) + any(joined)) * statistics + caches
    together += (shortening + (shortening < len(strategies))) * tower
    return together, len(kept) * (prefill + tower + weights) + sum(joined + alone) * statistics + caches


def memory_bytes(
    model: PreTrainedModel,
    image: ImageShape,
    strategies: Sequence[Strategy],
    *,
    tokens: int,
    batch_size: int,
    dtype: torch.dtype,
) -> int:
    """Peak bytes while a batch of prompts is computed under all strategies together (see `lookm.models.memory`)."""
    from lookm.models.memory import memory_need

    needs = [memory_need(model, image, strategy, tokens, dtype) for strategy in strategies]
    workspace = max(need.workspace for need in needs)
    return needs[0].weights + batch_size * (sum(need.cache for need in needs) + workspace)


def estimate(runs: Sequence[PlannedRun], gpu: Gpu) -> Estimate:
    """Estimates the cost of a group from the model's architecture.

    Raises:
        LookmError: a model that does not tell its sizes.
    """
    import torch

    from lookm.models.memory import blueprint

    first, strategies = runs[0].settings, [run.settings.strategy for run in runs]
    dtype, config = getattr(torch, first.dtype), first.model_config
    model, image = blueprint(config)
    prompts, basis = _prompts(first, image)
    answer_tokens, recorded = _answer_tokens(runs)
    costs = [
        prompt_seconds(
            model, image, gpu, strategies, tokens=tokens, images=images, answer_tokens=answer_tokens, dtype=dtype
        )
        for tokens, images in prompts
    ]
    together, apart = (fmean(cost[place] for cost in costs) for place in (0, 1))
    longest, batch_size = int(config["max_context_len"]), int(config["batch_size"])
    memory = memory_bytes(model, image, strategies, tokens=longest, batch_size=batch_size, dtype=dtype)
    assumed = (
        f"answers of {answer_tokens:.0f} tokens ({'mean of the recorded ones' if recorded else 'assumed'}), "
        f"{first.dtype} on one {gpu.label} at {COMPUTE_SHARE:.0%} of its FLOP/s in prefill and {BANDWIDTH_SHARE:.0%} "
        "of its bandwidth in decode (assumed)"
    )
    left = [run.left for run in runs]
    return Estimate(together * max(left), apart * fmean(left), memory, (basis, assumed))


def _prompts(settings: Settings, image: ImageShape) -> tuple[list[tuple[int, int]], str]:
    """Tokens and images of prompts that stand for all, and what they rest on."""
    from benchmarks.evaluation.examples import read_datasets
    from lookm.models.memory import prompt_of

    longest = int(settings.model_config["max_context_len"])
    try:
        settings.benchmark.prepare()
        datasets = read_datasets(settings)
    except LookmError:
        images = int(prompt_of(longest, image.tokens).sum()) // image.tokens
        return [(longest, images)], (
            f"the data are not here: every prompt is taken to fill the context of {longest} tokens (an upper bound)"
        )
    prompts = []
    for dataset in datasets:
        for sample in dataset.samples.values():
            instance = sample["task_instance"]
            text = ceil(len(dataset.instruction(sample) + instance["context"]) / CHARACTERS_PER_TOKEN)
            images = min(len(instance["images_path"]), max(0, longest - text) // image.tokens)
            prompts.append((min(longest, text + images * image.tokens), images))
    mean = fmean(tokens for tokens, _ in prompts)
    spread = sorted(prompts)[len(prompts) // _PROMPTS // 2 :: max(1, len(prompts) // _PROMPTS)]
    return spread, f"prompts of {mean:.0f} tokens on average, {CHARACTERS_PER_TOKEN:g} characters to a token (assumed)"


def _answer_tokens(runs: Sequence[PlannedRun]) -> tuple[float, bool]:
    """Mean tokens of an answer, and whether recorded answers tell."""
    recorded = [
        len(record.answer_tokens)
        for run in runs
        for info in run.settings.datasets
        for record in RunFolder(run.settings.folder).records(info.dataset).values()
        if record.answered
    ]
    if recorded:
        return fmean(recorded), True
    return float(min(ANSWER_TOKENS, int(runs[0].settings.model_config["max_new_tokens"]))), False


def measure(runs: Sequence[PlannedRun], *, batches: int = 3) -> Estimate:
    """Times a few batches under all strategies of a group, and under one alone, on this machine.

    Args:
        runs: runs of one model that select the same samples.
        batches: how many to time, after one that is not timed.

    Raises:
        LookmError: no weights or no data.
    """
    import torch

    from benchmarks.evaluation.batches import read_batches
    from benchmarks.evaluation.examples import Example, build_examples, read_datasets
    from benchmarks.evaluation.generate import answer
    from benchmarks.evaluation.run import load_backbone

    first, strategies = runs[0].settings, [run.settings.strategy for run in runs]
    root, backbone = first.benchmark.root, load_backbone(first)
    datasets = {dataset.info.dataset: dataset for dataset in read_datasets(first)}
    counted = {name: build_examples(dataset, list(dataset.samples), backbone) for name, dataset in datasets.items()}
    lengths = {
        name: {item.sample_id: item.tokens for item in items if isinstance(item, Example)}
        for name, items in counted.items()
    }
    drawn = random.Random(0)
    seconds = dict.fromkeys((1, len(strategies)), 0.0)
    timed = 0
    for number in range(batches + 1):
        name = drawn.choice([name for name in datasets if lengths[name]])
        sample = drawn.choice(sorted(lengths[name]))
        unit = next(iter(read_batches([datasets[name]], {name: {sample}}, backbone, root)))
        for size in seconds:
            began = time.perf_counter()
            for part in unit.parts:
                answer(backbone, strategies[-size:], datasets[name], part, root=root)
            if number:
                seconds[size] += time.perf_counter() - began
        if number:
            timed += sum(lengths[name][one.sample_id] for part in unit.parts for one in part.samples)
    if not timed:
        raise LookmError("none of the drawn samples can be read, so nothing can be measured; see the data")
    total = sum(sum(tokens.values()) for tokens in lengths.values())
    share = [run.left / max(1, run.selected) for run in runs]
    if first.device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated(first.device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    basis = (
        f"measured on {first.device}: {batches} batches of {backbone.batch_size}, {timed} prompt tokens; "
        f"the {len(datasets)} datasets have {total}",
    )
    apart, together = seconds[1] / timed * total * sum(share), seconds[len(strategies)] / timed * total * max(share)
    return Estimate(together, apart, peak, basis)


def paired_differences(runs: Sequence[PlannedRun]) -> list[float]:
    """Official scores of samples under a compressing strategy minus those under the full cache, where both are there.

    Only runs are compared that differ in nothing but the strategy.
    """
    from benchmarks.evaluation.comparable import comparable

    folders = [RunFolder(run.settings.folder) for run in runs if not run.settings.is_full]
    full = next((RunFolder(run.settings.folder) for run in runs if run.settings.is_full), None)
    if full is None or not full.exists:
        return []
    differences: list[float] = []
    for folder in folders:
        if not folder.exists or not comparable(folder.about, full.about):
            continue
        for info in runs[0].settings.datasets:
            reference = full.records(info.dataset)
            for name, record in folder.records(info.dataset).items():
                full_scores = reference[name].scores if name in reference else None
                if record.scores and full_scores:
                    differences.append(record.scores["official"] - full_scores["official"])
    return differences


def resolve(
    difference: float, measured: Sequence[float] = (), *, level: float = 0.95, power: float = 0.8
) -> tuple[int, float, int]:
    """The smallest subset at which a true difference is found with some power, two-sided.

    n = (z₁₋α⸝₂ + z_power)² σ² / δ², for the mean of paired differences (for instance Chow, Shao and Wang, Sample Size
    Calculations in Clinical Research, 2008, section 3.1).

    Args:
        difference: δ, of mean scores, in (0, 1].
        measured: paired differences of samples' scores from earlier runs; with fewer than 30 of them σ² is assumed to
            be that of scores 0 and 1 which disagree on a share `DISAGREEMENT` of the samples.
        level: 1 - α.

    Returns:
        Samples of one comparison, in all datasets together; σ²; and the measured pairs behind it, 0 if it is assumed.
    """
    pairs = len(measured) if len(measured) >= _FEWEST_PAIRS else 0
    spread = variance(measured) if pairs else max(DISAGREEMENT, difference) - difference**2
    quantiles = NormalDist().inv_cdf(0.5 + level / 2) + NormalDist().inv_cdf(power)
    samples = max(_FEWEST_PAIRS, ceil(quantiles**2 * spread / difference**2 - 1e-9))
    return samples, spread, pairs
