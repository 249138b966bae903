"""A run's result files, in MileBench's layout, and its summary: both are made from `samples.jsonl`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.benchmark import Benchmark
from benchmarks.evaluation.audit import audit_records
from benchmarks.evaluation.examples import read_datasets
from benchmarks.evaluation.provenance import git_state
from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.store import RunFolder
from benchmarks.evaluation.summary import Summary, folder_results, full_run, other_commits, summarise
from benchmarks.files import write_json, writing
from benchmarks.milebench import PROTOCOLS, score_predictions, write_evaluation
from benchmarks.milebench.annotation import digest
from benchmarks.milebench.dataset import Dataset
from lookm.errors import LookmError

_FILES = ("pred.json", "eval.json", "eval_score.json", "repaired.json")


def summary_of(settings: Settings) -> Summary:
    """Sums up what is in a run's folder, without computing or writing anything.

    Raises:
        LookmError: no such run, or its data are gone.
    """
    folder = RunFolder(settings.folder)
    if not folder.exists:
        raise LookmError(f"{settings.folder} holds no run")
    datasets = read_datasets(settings)
    return read_summary(settings, folder, datasets)


def write_results(settings: Settings, folder: RunFolder, datasets: Sequence[Dataset]) -> None:
    """Writes the files made from `samples.jsonl`, for all its samples, whatever this call selects.

    Raises:
        BudgetError: a sample kept something else than the strategy promises; nothing is written then.
        LookmError: the folder cannot be written to, or another process holds the run.
    """
    with folder.hold(), writing(folder.path):
        for dataset in datasets:
            audit_records(
                settings.strategy, dataset.name, folder.records(dataset.name).values(), folder.about.get("cache")
            )
        folder.describe(**facts_of_run(settings))
        results = {dataset.name: _write_dataset(settings, folder, dataset) for dataset in datasets}
        folder.finish(results)


def _write_dataset(settings: Settings, folder: RunFolder, dataset: Dataset) -> dict[str, Any]:
    """Writes one dataset's files, unless they stand as made from these answers; returns its line in `run.json`."""
    name, target = dataset.name, folder.path / dataset.name
    folder.sort(name, [str(sample["sample_id"]) for sample in dataset.annotation["data"]])
    records = folder.records(name)
    written = folder.about.get("results", {}).get(name, {})
    if written.get("fingerprint") and written["fingerprint"] == _fingerprint(target, records):
        return dict(written)
    predictions = predictions_of(dataset, records, settings.model, folder.about["generation"])
    result: dict[str, Any] = {"answered": len(predictions), "failed": len(records) - len(predictions)}
    if predictions:
        write_json(target / "pred.json", predictions, indent=4)
        scored = {
            protocol: score_predictions(name, dataset.annotation, predictions, protocol=protocol)
            for protocol in PROTOCOLS
        }
        write_evaluation(target, scored["official"])
        write_json(target / "repaired.json", {key: scored["repaired"][key] for key in ("eval", "eval_score")})
        result |= {protocol: fmean(scores["scores"]) for protocol, scores in scored.items()}
        result["fingerprint"] = _fingerprint(target, records)
    return result


def _fingerprint(target: Path, records: Mapping[str, SampleRecord]) -> str | None:
    """Of a dataset's answers and the files made from them, so that damaged files are made again; None if one lacks."""
    summary = hashlib.sha256(digest({key: [r.digest, r.answer, r.scores] for key, r in records.items()}).encode())
    try:
        for file in _FILES:
            summary.update((target / file).read_bytes())
    except OSError:
        return None
    return summary.hexdigest()[:16]


def facts_of_run(settings: Settings) -> dict[str, Any]:
    """What `run.json` says besides what decides the answers, so that tables need nothing else.

    `reference` is the name of the same run with the full cache, None where nothing is compressed.
    """
    reference = None if settings.is_full else full_run(settings).run
    return {"reference": reference, **facts_of_benchmark(settings.benchmark)}


def facts_of_benchmark(benchmark: Benchmark) -> dict[str, Any]:
    """A benchmark's variant, and all its datasets."""
    return {
        "adversarial": benchmark.adversarial,
        "combine_image": benchmark.combine_image,
        "datasets": {
            info.dataset: {"task": info.task, "metric": info.metric, "samples": info.samples, "chance": info.chance}
            for info in benchmark.datasets
        },
    }


def predictions_of(
    dataset: Dataset,
    records: Mapping[str, SampleRecord],
    model: str,
    generation: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Answered samples in the annotation's order, as records of MileBench's `pred.json`.

    Its `evaluate.py` looks samples up by a whole number, and takes the truth for a text, whatever the annotation has.
    """
    answered = []
    for sample in dataset.annotation["data"]:
        record = records.get(str(sample["sample_id"]))
        if record is not None and record.answered:
            answered.append(
                {
                    "sample_id": _as_number(sample["sample_id"]),
                    "image": list(record.images),
                    "question": record.question,
                    "gt_response": str(sample["response"]),
                    "gen_model_id": model,
                    "pred_response": record.answer,
                    "gen_kwargs": dict(generation),
                }
            )
    return answered


def _as_number(sample_id: int | str) -> int | str:
    return int(sample_id) if isinstance(sample_id, str) and sample_id.strip().isdecimal() else sample_id


def read_summary(settings: Settings, folder: RunFolder, datasets: Iterable[Dataset]) -> Summary:
    """Sums up the selected samples of a run's folder; computes and writes nothing."""
    results = folder_results(folder, {dataset.info: dataset.samples for dataset in datasets})
    labels = folder.about.get("labels", {})
    commits = other_commits(folder.about, git_state()["commit"])
    return summarise(settings, labels.get("model", settings.model), results, commits)
