"""Answering one batch of samples under many strategies, and recording what was kept, answered and scored."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.evaluation.batches import Encoded, is_out_of_memory, read_batch
from benchmarks.evaluation.examples import Example, begin_record
from benchmarks.evaluation.records import SampleRecord
from benchmarks.milebench.dataset import Dataset
from lookm.strategy import Strategy
from lookm.sweep import SweepRow, generate_sweep

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone

NOT_FINITE = "the logits are not finite"


def answer_examples(
    backbone: Backbone, strategies: Sequence[Strategy], dataset: Dataset, examples: Sequence[Example], *, root: Path
) -> list[list[SampleRecord]]:
    """Reads examples and answers them under every strategy.

    Returns:
        For each strategy one record per sample, in the examples' order; a sample without an answer has its `error`.

    Raises:
        LookmError: the dataset's folder has vanished, or a cache holds something else than its strategy promises.
    """
    batch = read_batch(dataset, examples, backbone, root, {example.sample_id for example in examples})
    by_strategy: list[list[SampleRecord]] = [list(batch.failures) for _ in strategies]
    for part in batch.parts:
        for records, new in zip(by_strategy, answer(backbone, strategies, dataset, part, root=root), strict=True):
            records += new
    order = {example.sample_id: place for place, example in enumerate(examples)}
    return [sorted(records, key=lambda record: order[str(record.sample_id)]) for records in by_strategy]


def answer(
    backbone: Backbone, strategies: Sequence[Strategy], dataset: Dataset, encoded: Encoded, *, root: Path
) -> list[list[SampleRecord]]:
    """Answers encoded samples under every strategy with one prefill, if memory suffices.

    Where it does not, fewer strategies are tried at once, then fewer samples, then one sample; if that is still too
    much, the sample's record says so.

    Returns:
        For each strategy one record per sample, in their order.

    Raises:
        LookmError: as `answer_examples`.
    """
    by_strategy: list[list[SampleRecord]] = []
    at_once = len(strategies)
    while len(by_strategy) < len(strategies):
        some = strategies[len(by_strategy) : len(by_strategy) + at_once]
        rows = _sweep(backbone, some, encoded)
        if rows is not None:
            shared = len(rows) > 1
            by_strategy += [_records(backbone, dataset, encoded, row, root, shared=shared) for row in rows]
        elif len(some) > 1:
            at_once = (len(some) + 1) // 2
        elif len(encoded.samples) > 1:
            return by_strategy + _answer_halves(
                backbone, strategies[len(by_strategy) :], dataset, encoded.samples, root
            )
        else:
            (example,) = encoded.samples
            tokens = encoded.inputs["input_ids"].shape[1]
            reason = f"out of memory with this sample alone ({tokens} tokens, {some[0].name})"
            by_strategy.append([begin_record(dataset, example, root, error=reason)])
    return by_strategy


def _answer_halves(
    backbone: Backbone, strategies: Sequence[Strategy], dataset: Dataset, examples: Sequence[Example], root: Path
) -> list[list[SampleRecord]]:
    """Each half of the samples on its own; read again, since a batch's inputs cannot be cut in two."""
    half = (len(examples) + 1) // 2
    first, second = (
        answer_examples(backbone, strategies, dataset, part, root=root) for part in (examples[:half], examples[half:])
    )
    return [left + right for left, right in zip(first, second, strict=True)]


def _sweep(backbone: Backbone, strategies: Sequence[Strategy], encoded: Encoded) -> list[SweepRow] | None:
    """One sweep; None if memory ran out."""
    asked: dict[str, Any] = {"questions": encoded.questions, "question_tokens": encoded.question_tokens}
    limits: dict[str, Any] = {
        "max_new_tokens": backbone.max_new_tokens,
        "min_new_tokens": 1,
        "pad_token_id": int(backbone.tokenizer.pad_token_id),
        "eos_token_ids": backbone.end_tokens,
    }
    try:
        return generate_sweep(backbone.model, encoded.inputs, strategies, **asked, **limits)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    # No exception is handled any more here, so its traceback holds no tensors.
    _warn_out_of_memory(len(encoded.samples), len(strategies))
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


@lru_cache
def _warn_out_of_memory(samples: int, strategies: int) -> None:
    """Says once for each size what was too much."""
    print(
        f"out of memory with {samples} samples × {strategies} strategies at once; trying less "
        "(a smaller model.batch_size saves these tries)",
        file=sys.stderr,
        flush=True,
    )


def _records(
    backbone: Backbone, dataset: Dataset, encoded: Encoded, row: SweepRow, root: Path, *, shared: bool
) -> list[SampleRecord]:
    """What one strategy answered; `shared` says that other strategies were computed in the same prefill."""
    longest = max(1, *map(len, row.tokens))
    padded = [[*tokens, *[int(backbone.tokenizer.pad_token_id)] * (longest - len(tokens))] for tokens in row.tokens]
    texts = backbone.answers(torch.tensor(padded))
    records = []
    contexts = range(len(texts)) if encoded.questions is None else encoded.questions.contexts
    for number, (example, text) in enumerate(zip(encoded.samples, texts, strict=True)):
        record = begin_record(dataset, example, root, error=None if row.finite[number] else NOT_FINITE)
        if record.answered:
            scores = dataset.scores(dataset.samples[example.sample_id], text)
            record = _with_report(record, row, contexts[number], shared=shared)
            record = replace(record, answer=text, answer_tokens=row.tokens[number], scores=scores)
        records.append(record)
    return records


def _with_report(record: SampleRecord, row: SweepRow, number: int, *, shared: bool) -> SampleRecord:
    """Adds what the engine reports of one row. Times of steps that several strategies share belong to none of them."""
    report = row.report
    times = {
        "compress_ms": None if shared else report.compress_ms,
        "prefill_ms": None if shared else report.prefill_ms,
        "decode_ms_per_token": None if shared else report.decode_ms_per_token,
        "batch": len(row.tokens),
        "decode_rows": report.decode_rows,
    }
    return replace(
        record,
        prompt_tokens=report.prompt_tokens[number],
        image_tokens=report.image_tokens[number],
        kept_tokens=tuple(layer[number] for layer in report.kept_tokens),
        realised_budget=report.realised_budget[number],
        kept_bytes=sum(layer[number] for layer in report.kept_bytes),
        full_bytes=sum(layer[number] for layer in report.full_bytes),
        peak_bytes=report.peak_bytes[number],
        times=times,
    )
