"""The training card: how well the model answers, by the way every benchmark run takes, and how it was made."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image

from benchmarks.benchmark import Benchmark, DatasetInfo
from benchmarks.milebench import build_prompt, read_annotation, score_predictions
from benchmarks.mini.sample import PLACES, Place
from lookm.models.backbone import Backbone
from lookm.models.tiny import TOKENS_PER_IMAGE

from .loop import REPORT_EVERY, Training
from .schedule import Stage, described

CURVE_ROWS = 40
_HEAD = """# {title}

A `{architecture}` of {parameters:.2f} M parameters: decoder of {layers} layers, width {width}, {heads} query and
{key_heads} key heads; vision tower of {vision_layers} layers; 32 × 32 images, {tokens} tokens each. Trained on
generated prompts of MileBench-mini's twelve tasks; it exists so that the whole harness runs on a laptop, and knows
nothing else. Weights are stored in float16.

Made from nothing by `{command}` with seed {seed}: {steps:,} optimiser steps,
{minutes:.0f} minutes on {hardware}. Training and evaluation share no seed (training starts at 1,000,000,
evaluation ends below) and no handwritten digit.

## Accuracy with the full cache

MileBench-mini, {samples} held-out samples per dataset (evaluation seed {evaluation_seed}): files → `build_prompt` →
`Backbone.inputs` → greedy `generate` → `score_predictions`, MileBench's own protocol; the question stands last, as in
MileBench, or before its pictures; one that comes later (`question=unseen`) is the full cache's question last. Chance is
what guessing scores, or the best constant answer under ROUGE-L.

| task | dataset | metric | question last | question first | chance |
|---|---|---|---|---|---|
"""
_HOW = """
## The curriculum

{stages}

- **Seeing.** Vision tower and projector learn first and alone. The words' embeddings stand still, and every image token
  shall become the sum of the embeddings of the words for its picture, and of the place of each disc along fixed random
  directions. The decoder then reads a picture as it reads words. Handwritten digits are what is learnt last: once the
  decoder can read, tower and projector learn them again, by the embeddings as they are then.
- **Retrieval.** One head of layer 0 begins by looking at the token before, four key heads behind it by comparing words
  with what it writes and with what tokens are, and copying what they find (`give_circuits` in `families.py`).
- **Length.** The decoder first reads one token for each picture, the mean of its {tokens}, and only then all of them.
  Positions are those of the whole prompt throughout: names and pictures stand as far from each other as they will.
- **Comparing and motion.** An answer says what it sees before it concludes: T-3 the disc's first and last quarter of
  the picture, I-1 the thing in the picture that is to be found. Asked for the conclusion alone, neither was learnt: in
  4,450 steps T-3 stayed near 0.6 and I-1 below chance, though the pictures themselves were read rightly.
- **Few answers per prompt.** Up to {questions} questions follow each other behind one context, and all their answers
  are learnt; some prompts begin with their question. Tasks with few questions per context are drawn more often.
- **Steps.** Muon (torch's own) for the matrices of all layers, AdamW for the rest.

## Curve

Means over the {every} steps up to each line. While seeing is learnt, the loss is that lesson's, and `right` the share
of image tokens whose nearest word is a right one; afterwards both are per token of the answers.

| step | stage | loss | right |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Mark:
    """One dataset's score in [0, 1] under MileBench's own protocol, and what guessing would score."""

    task: str
    dataset: str
    metric: str
    score: float
    chance: float


def examine(backbone: Backbone, benchmark: Benchmark) -> list[Mark]:
    """Answer every sample of a benchmark greedily and score the answers; writes the data first if need be."""
    benchmark.prepare()
    return [examine_dataset(backbone, benchmark, info) for info in benchmark.datasets]


def examine_dataset(backbone: Backbone, benchmark: Benchmark, info: DatasetInfo) -> Mark:
    """The same for one dataset."""
    annotation = read_annotation(benchmark.root, info.dataset)
    predictions: list[dict[str, Any]] = []
    for start in range(0, len(annotation["data"]), backbone.batch_size):
        samples = annotation["data"][start : start + backbone.batch_size]
        answers = answer_samples(backbone, benchmark, info.dataset, annotation, samples)
        predictions += [
            {"sample_id": s["sample_id"], "gt_response": s["response"], "pred_response": answer}
            for s, answer in zip(samples, answers, strict=True)
        ]
    result = score_predictions(info.dataset, annotation, predictions, protocol="official")["eval"]
    score = float(result["Rouge-L f" if info.metric == "rouge_l" else "Accuracy"])
    return Mark(info.task, info.dataset, info.metric, score, float(info.chance or 0.0))


@torch.inference_mode()
def answer_samples(
    backbone: Backbone,
    benchmark: Benchmark,
    dataset: str,
    annotation: dict[str, Any],
    samples: list[dict[str, Any]],
) -> list[str]:
    """The model's answers to a batch of samples."""
    prompts = [
        build_prompt(
            sample,
            annotation["meta_data"]["task_instruction"],
            dataset=dataset,
            tokenizer=backbone.tokenizer,
            max_context_len=backbone.max_context_len,
            n_tokens_per_image=backbone.n_tokens_per_image,
            image_dir=benchmark.root / dataset / "images",
        )
        for sample in samples
    ]
    images = [[Image.open(path) for path in prompt.images] for prompt in prompts]
    generate = cast("Callable[..., torch.Tensor]", backbone.model.generate)
    inputs = backbone.inputs([prompt.text for prompt in prompts], images)
    output = generate(**inputs, max_new_tokens=backbone.max_new_tokens, do_sample=False)
    return backbone.answers(output[:, inputs["input_ids"].shape[1] :])


def hardware(device: torch.device) -> str:
    """The GPU, or processor and number of threads, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    file, name = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    if file.is_file():
        named = [
            line.split(":", 1)[1].strip() for line in file.read_text().splitlines() if line.startswith("model name")
        ]
        name = named[0] if named else name
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' * (threads > 1)} of {name}"


def write_card(
    path: Path,
    training: Training,
    stages: tuple[Stage, ...],
    marks: dict[Place, list[Mark]],
    *,
    model: str,
    samples: int,
    seed: int,
) -> None:
    """Write the card of a trained model, in one stroke."""
    config = training.model.config
    text, vision = config.get_text_config(), config.vision_config
    head = _HEAD.format(
        title=training.family.title,
        architecture=type(training.model).__name__,
        parameters=sum(p.numel() for p in training.model.parameters()) / 1e6,
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        heads=text.num_attention_heads,
        key_heads=text.num_key_value_heads,
        vision_layers=vision.num_hidden_layers,
        tokens=TOKENS_PER_IMAGE,
        command=f"python -m scripts.train_tiny --model {model}",
        seed=training.seed,
        steps=training.step,
        minutes=training.seconds / 60,
        hardware=" and ".join(dict.fromkeys(session.hardware for session in training.sessions)),
        samples=samples,
        evaluation_seed=seed,
    )
    for last, first in zip(marks["last"], marks["first"], strict=True):
        metric = {"rouge_l": "ROUGE-L"}.get(last.metric, last.metric)
        head += (
            f"| {last.task} | {last.dataset} | {metric} | {last.score:.3f} | {first.score:.3f} | {last.chance:.3f} |\n"
        )
    mean_last, mean_first = (sum(mark.score for mark in marks[place]) / len(marks[place]) for place in PLACES)
    head += f"| mean | | | {mean_last:.3f} | {mean_first:.3f} | |\n"
    how = _HOW.format(
        tokens=TOKENS_PER_IMAGE,
        every=REPORT_EVERY,
        questions=max(stage.questions for stage in stages),
        stages=described(stages),
    )
    rows = training.curve[:: -(-len(training.curve) // CURVE_ROWS) or 1]
    how += "".join(f"| {step:,} | {stage} | {loss:.3f} | {right:.3f} |\n" for step, stage, loss, right in rows)
    sessions = "\n## Sessions\n\n" + "".join(
        f"- steps {s.first:,} to {s.last:,}, {s.seconds / 60:.0f} minutes, {s.hardware}, {s.precision}\n"
        for s in training.sessions
    )
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(head + how + sessions, encoding="utf-8")
    temporary.replace(path)
