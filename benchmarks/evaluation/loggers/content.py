"""What loggers send of a run: its numbers by name, and its samples with questions, truths, scores and pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from benchmarks.evaluation.preparation import Dataset, read_dataset
from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.results import predictions_of, summary_of
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.store import RunFolder
from benchmarks.evaluation.summary import Summary, TaskRow
from benchmarks.milebench import PROTOCOLS, score_predictions


@dataclass(frozen=True)
class LoggedSample:
    """One finished sample.

    Attributes:
        dataset, task: where it is from.
        record: what was asked and answered.
        truth: the annotation's response.
        scores: protocol → score in [0, 1]; empty where there is no answer.
    """

    dataset: str
    task: str
    record: SampleRecord
    truth: str
    scores: Mapping[str, float]


def numbers(row: TaskRow, prefix: str) -> dict[str, float]:
    """A table row as `<prefix>/<what>` → number; what there is no number for is left out.

    Shares are in [0, 1], `kept_bytes` in bytes of a sample, `decode_ms` in milliseconds.
    """
    values: dict[str, float | None] = {
        **{protocol: row.scores.get(protocol) for protocol in PROTOCOLS},
        "chance": row.chance,
        "realised_budget": row.budget,
        "kept_bytes": row.kept_bytes,
        "changed_answers": row.changed,
        "decode_ms": row.decode_ms,
        "answered": row.n,
        "failed": row.failed,
        "missing": row.missing,
    }
    return {f"{prefix}/{name}": float(value) for name, value in values.items() if value is not None}


def summary_numbers(summary: Summary) -> dict[str, float]:
    """All tasks of a run as `task/T-1/official` …, and their mean as `mean/official` …"""
    found = numbers(summary.mean, "mean")
    for row in summary.rows:
        found |= numbers(row, f"task/{row.task}")
    return found


def dataset_numbers(settings: Settings, name: str) -> dict[str, float]:
    """One dataset of a run as `dataset/<name>/official` …."""
    chosen = tuple(info for info in settings.datasets if info.dataset == name)
    return numbers(summary_of(replace(settings, datasets=chosen)).mean, f"dataset/{name}")


def logged_samples(settings: Settings, folder: RunFolder, limit: int) -> Iterator[LoggedSample]:
    """Finished samples of each selected dataset, at most `limit` of each, in the annotation's order."""
    for info in settings.datasets:
        dataset = read_dataset(settings.benchmark, info, None)
        yield from islice(_samples_of(dataset, folder, settings), limit)


def _samples_of(dataset: Dataset, folder: RunFolder, settings: Settings) -> Iterator[LoggedSample]:
    info, records = dataset.info, folder.records(dataset.info.dataset)
    scores: dict[str, dict[str, float]] = {}
    predictions = predictions_of(dataset, records, settings.model, {})
    for protocol in PROTOCOLS if predictions else ():
        result: dict[str, Any] = score_predictions(info.dataset, dataset.annotation, predictions, protocol=protocol)
        for prediction, score in zip(predictions, result["scores"], strict=True):
            scores.setdefault(str(prediction["sample_id"]), {})[protocol] = float(score)
    for sample in dataset.annotation["data"]:
        name = str(sample["sample_id"])
        if name in records:
            yield LoggedSample(info.dataset, info.task, records[name], str(sample["response"]), scores.get(name, {}))
