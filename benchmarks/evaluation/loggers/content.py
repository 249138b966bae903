"""What loggers send of a run, read from its folder: its numbers by name, and its samples with truths and scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks.evaluation.cells import Totals
from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.store import RunFolder
from benchmarks.evaluation.summary import recorded_results, task_totals
from benchmarks.files import read_json
from benchmarks.milebench.scoring import PROTOCOLS


@dataclass(frozen=True)
class LoggedSample:
    """One finished sample: its dataset, what was asked and answered, and the annotation's response."""

    dataset: str
    record: SampleRecord
    truth: str


def numbers(row: Totals, prefix: str) -> dict[str, float]:
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


def run_numbers(folder: RunFolder) -> dict[str, float]:
    """All tasks of a run as `task/T-1/official` …, and their mean as `mean/official` …"""
    rows, mean = task_totals(recorded_results(folder, folder.datasets))
    values = numbers(mean, "mean")
    for task, row in rows.items():
        values |= numbers(row, f"task/{task}")
    return values


def dataset_numbers(folder: RunFolder, name: str) -> dict[str, float]:
    """One dataset of a run as `dataset/<name>/official` …."""
    return numbers(task_totals(recorded_results(folder, [name]))[1], f"dataset/{name}")


def image_root(folder: RunFolder) -> Path | None:
    """Where the last session found the benchmark's images."""
    root = (folder.resolved.get("benchmark") or {}).get("root")
    return None if root is None else Path(root)


def logged_samples(folder: RunFolder, limit: int) -> Iterator[LoggedSample]:
    """Finished samples of each dataset, at most `limit` of each, in the annotation's order."""
    for dataset in folder.datasets:
        entries = read_json(folder.path / dataset / "pred.json") or []
        truths = {str(entry["sample_id"]): str(entry["gt_response"]) for entry in entries}
        for name, record in islice(folder.records(dataset).items(), limit):
            yield LoggedSample(dataset, record, truths.get(name, ""))
