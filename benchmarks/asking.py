"""Asking the model one batch of samples, and writing down what the cache kept and what came out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.preparation import DATA_ERRORS, Dataset, Prepared, one_line, open_images
from benchmarks.records import SampleRecord
from benchmarks.reuse import Reuse
from lookm import look_once
from lookm.errors import LookmError
from lookm.report import Report
from lookm.strategy import Strategy

if TYPE_CHECKING:
    from PIL.Image import Image

    from lookm.models.backbone import Backbone


@dataclass(frozen=True)
class Encoded:
    """Samples and their model inputs, as `Backbone.inputs` returns them."""

    samples: Sequence[Prepared]
    inputs: dict[str, torch.Tensor]


def ask(
    backbone: Backbone, strategy: Strategy, dataset: Dataset, batch: Sequence[Prepared], *, root: Path, reuse: Reuse
) -> list[SampleRecord]:
    """Answers a batch, each prompt's cache compressed by the strategy.

    Args:
        backbone: the model.
        strategy: how to compress.
        dataset: where the samples are from.
        batch: samples with their prompts.
        root: the benchmark's folder; paths of images are recorded relative to it.
        reuse: where the inputs of the batch may be from an earlier run, or are kept for the next.

    Returns:
        One record per sample; a sample whose images cannot be read or encoded has its `error` and no answer.
    """
    key = ("inputs", dataset.info.dataset, *(dataset.digests[sample.sample_id] for sample in batch))
    inputs = reuse.find(key)
    if inputs is not None:
        return _generate(backbone, strategy, dataset, batch, inputs, root)
    records: list[SampleRecord] = []
    readable: list[tuple[Prepared, list[Image]]] = []
    for sample in batch:
        try:
            readable.append((sample, open_images(sample.prompt.images)))
        except LookmError as error:
            records.append(_failure(dataset, sample, error, root=root))
    for part in _encodable(backbone, readable):
        if isinstance(part, Encoded):
            if len(part.samples) == len(batch):
                reuse.keep(key, part.inputs, sum(tensor.nbytes for tensor in part.inputs.values()))
            records += _generate(backbone, strategy, dataset, part.samples, part.inputs, root)
        else:
            records.append(_failure(dataset, *part, root=root))
    return records


def _encodable(
    backbone: Backbone, samples: Sequence[tuple[Prepared, list[Image]]]
) -> Iterator[Encoded | tuple[Prepared, Exception]]:
    """All samples in one batch; if that fails, each on its own, to find out which one spoils it."""
    if not samples:
        return
    texts, images = [sample.prompt.text for sample, _ in samples], [pictures for _, pictures in samples]
    try:
        yield Encoded([sample for sample, _ in samples], backbone.inputs(texts, images))
    except DATA_ERRORS as error:
        if len(samples) == 1:
            yield samples[0][0], error
            return
        for pair in samples:
            yield from _encodable(backbone, [pair])


def _generate(
    backbone: Backbone,
    strategy: Strategy,
    dataset: Dataset,
    samples: Sequence[Prepared],
    inputs: dict[str, torch.Tensor],
    root: Path,
) -> list[SampleRecord]:
    with look_once(backbone.model, strategy) as session, torch.inference_mode():
        output = backbone.model.generate(  # type: ignore[operator]
            **inputs,
            do_sample=False,
            min_new_tokens=1,
            max_new_tokens=backbone.max_new_tokens,
            pad_token_id=backbone.tokenizer.pad_token_id,
        )
    generated = output[:, inputs["input_ids"].shape[1] :]  # (B, T)
    ends = _end_tokens(backbone)
    report = session.report()
    return [
        _record(dataset, sample, root, report, row, answer, until_end(tokens, ends))
        for row, (sample, answer, tokens) in enumerate(
            zip(samples, backbone.answers(generated), generated.tolist(), strict=True)
        )
    ]


def until_end(tokens: Sequence[int], ends: frozenset[int]) -> tuple[int, ...]:
    """Tokens up to and with the first that ends an answer: what follows is only padding of the batch."""
    for place, token in enumerate(tokens):
        if token in ends:
            return tuple(tokens[: place + 1])
    return tuple(tokens)


def _end_tokens(backbone: Backbone) -> frozenset[int]:
    ends = backbone.model.generation_config.eos_token_id
    return frozenset() if ends is None else frozenset(ends if isinstance(ends, list) else [ends])


def _record(
    dataset: Dataset,
    sample: Prepared,
    root: Path,
    report: Report,
    row: int,
    answer: str,
    tokens: tuple[int, ...],
) -> SampleRecord:
    return SampleRecord(
        sample_id=dataset.samples[sample.sample_id]["sample_id"],
        digest=dataset.digests[sample.sample_id],
        question=sample.prompt.context,
        images=_relative(sample.prompt.images, root),
        dropped_images=sample.prompt.dropped_images,
        dropped_tokens=sample.prompt.dropped_tokens,
        notes=sample.prompt.notes,
        prompt_tokens=report.prompt_tokens[row],
        image_tokens=report.image_tokens[row],
        kept_tokens=tuple(layer[row] for layer in report.kept_tokens),
        realised_budget=report.realised_budget[row],
        kept_bytes=sum(layer[row] for layer in report.kept_bytes),
        full_bytes=sum(layer[row] for layer in report.full_bytes),
        answer=answer,
        answer_tokens=tokens,
        times={
            "compress_ms": report.compress_ms,
            "prefill_ms": report.prefill_ms,
            "decode_ms_per_token": report.decode_ms_per_token,
            "batch": len(report.prompt_tokens),
        },
    )


def _failure(dataset: Dataset, sample: Prepared, error: Exception, *, root: Path) -> SampleRecord:
    return SampleRecord(
        sample_id=dataset.samples[sample.sample_id]["sample_id"],
        digest=dataset.digests[sample.sample_id],
        error=one_line(error),
        question=sample.prompt.context,
        images=_relative(sample.prompt.images, root),
        dropped_images=sample.prompt.dropped_images,
        dropped_tokens=sample.prompt.dropped_tokens,
        notes=sample.prompt.notes,
    )


def _relative(paths: Sequence[str], root: Path) -> tuple[str, ...]:
    return tuple(Path(path).relative_to(root).as_posix() for path in paths)
