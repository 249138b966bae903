"""Asking the model one batch of samples under many strategies, and writing down what was kept and what came out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from benchmarks.evaluation.memory import is_out_of_memory, make_room
from benchmarks.evaluation.preparation import Dataset, Prepared
from benchmarks.evaluation.reading import Encoded, asked, read_unit
from benchmarks.evaluation.records import SampleRecord
from lookm.strategy import Strategy
from lookm.sweep import SweepRow, generate_sweep

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone

NOT_FINITE = "the logits are not finite"


def ask(
    backbone: Backbone, strategies: Sequence[Strategy], dataset: Dataset, batch: Sequence[Prepared], *, root: Path
) -> list[list[SampleRecord]]:
    """Reads a batch and answers it under every strategy.

    Args:
        backbone: the model.
        strategies: how to compress the prompts' caches.
        dataset: where the samples are from.
        batch: samples with their prompts.
        root: the benchmark's folder; paths of images are recorded relative to it.

    Returns:
        For each strategy one record per sample, in the batch's order; a sample without an answer has its `error`.

    Raises:
        LookmError: the dataset's folder has vanished, or a cache holds something else than its strategy promises.
    """
    unit = read_unit(dataset, batch, backbone, root, {sample.sample_id for sample in batch})
    found: list[list[SampleRecord]] = [list(unit.failures) for _ in strategies]
    for part in unit.parts:
        for records, new in zip(found, answer(backbone, strategies, dataset, part, root=root), strict=True):
            records += new
    order = {sample.sample_id: place for place, sample in enumerate(batch)}
    return [sorted(records, key=lambda record: order[str(record.sample_id)]) for records in found]


def answer(
    backbone: Backbone, strategies: Sequence[Strategy], dataset: Dataset, encoded: Encoded, *, root: Path
) -> list[list[SampleRecord]]:
    """Answers encoded samples under every strategy with one prefill, if memory suffices.

    Where it does not, fewer strategies are tried at once, then fewer samples, then one sample; if that is still too
    much, the sample's record says so.

    Returns:
        For each strategy one record per sample, in their order.

    Raises:
        LookmError: as `ask`.
    """
    found: list[list[SampleRecord]] = []
    at_once = len(strategies)
    while len(found) < len(strategies):
        some = strategies[len(found) : len(found) + at_once]
        rows = _sweep(backbone, some, encoded)
        if rows is not None:
            found += [_records(backbone, dataset, encoded.samples, row, root) for row in rows]
        elif len(some) > 1:
            at_once = (len(some) + 1) // 2
        elif len(encoded.samples) > 1:
            return found + _answer_halves(backbone, strategies[len(found) :], dataset, encoded.samples, root)
        else:
            (sample,) = encoded.samples
            tokens = encoded.inputs["input_ids"].shape[1]
            reason = f"out of memory with this sample alone ({tokens} tokens, {some[0].name})"
            found.append([asked(dataset, sample, root, error=reason)])
    return found


def _answer_halves(
    backbone: Backbone, strategies: Sequence[Strategy], dataset: Dataset, samples: Sequence[Prepared], root: Path
) -> list[list[SampleRecord]]:
    """Each half of the samples on its own; read again, since a batch's inputs cannot be cut in two."""
    half = (len(samples) + 1) // 2
    first, second = (ask(backbone, strategies, dataset, part, root=root) for part in (samples[:half], samples[half:]))
    return [left + right for left, right in zip(first, second, strict=True)]


def _sweep(backbone: Backbone, strategies: Sequence[Strategy], encoded: Encoded) -> list[SweepRow] | None:
    """One sweep; None if memory ran out."""
    try:
        return generate_sweep(
            backbone.model,
            encoded.inputs,
            strategies,
            max_new_tokens=backbone.max_new_tokens,
            min_new_tokens=1,
            pad_token_id=int(backbone.tokenizer.pad_token_id),
            eos_token_ids=_end_tokens(backbone),
        )
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    _tell(len(encoded.samples), len(strategies))
    make_room()
    return None


@lru_cache
def _tell(samples: int, strategies: int) -> None:
    """Says once for each size what was too much."""
    print(
        f"out of memory with {samples} samples × {strategies} strategies at once; trying less "
        "(a smaller model.batch_size saves these tries)",
        file=sys.stderr,
        flush=True,
    )


def _end_tokens(backbone: Backbone) -> frozenset[int]:
    ends = backbone.model.generation_config.eos_token_id
    return frozenset() if ends is None else frozenset(ends if isinstance(ends, list) else [ends])


def _records(
    backbone: Backbone, dataset: Dataset, samples: Sequence[Prepared], row: SweepRow, root: Path
) -> list[SampleRecord]:
    """What one strategy answered."""
    longest = max(1, *map(len, row.tokens))
    padded = [[*tokens, *[int(backbone.tokenizer.pad_token_id)] * (longest - len(tokens))] for tokens in row.tokens]
    texts = backbone.answers(torch.tensor(padded))
    return [
        replace(
            _record(asked(dataset, sample, root), row, number, text),
            scores=dataset.scores(dataset.samples[sample.sample_id], text),
        )
        if row.finite[number]
        else asked(dataset, sample, root, error=NOT_FINITE)
        for number, (sample, text) in enumerate(zip(samples, texts, strict=True))
    ]


def _record(begun: SampleRecord, row: SweepRow, number: int, text: str) -> SampleRecord:
    report = row.report
    return replace(
        begun,
        prompt_tokens=report.prompt_tokens[number],
        image_tokens=report.image_tokens[number],
        kept_tokens=tuple(layer[number] for layer in report.kept_tokens),
        realised_budget=report.realised_budget[number],
        kept_bytes=sum(layer[number] for layer in report.kept_bytes),
        full_bytes=sum(layer[number] for layer in report.full_bytes),
        answer=text,
        answer_tokens=row.tokens[number],
        times={
            "compress_ms": report.compress_ms,
            "prefill_ms": report.prefill_ms,
            "decode_ms_per_token": report.decode_ms_per_token,
            "batch": len(report.prompt_tokens),
            "decode_rows": report.decode_rows,
        },
    )
