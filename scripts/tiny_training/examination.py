"""The trained model's accuracy on MileBench-mini's files, by the way every benchmark run takes, with the full cache."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from PIL import Image

from benchmarks.benchmark import Benchmark, DatasetInfo
from benchmarks.milebench import build_prompt, read_annotation, score_predictions
from lookm.models.backbone import Backbone


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
