"""Runs as one table, a line per sample: what tables, figures and reports are made from. Nothing is written here."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.benchmark import Benchmark
from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.results import predictions_of
from benchmarks.evaluation.settings import construct
from benchmarks.files import read_json
from benchmarks.milebench import PROTOCOLS, score_predictions
from benchmarks.milebench.dataset import Dataset, read_dataset
from lookm.errors import LookmError

if TYPE_CHECKING:
    import pandas

COLUMNS = (
    *("run", "model", "benchmark", "label", "strategy", "alpha1", "alpha2", "semantics", "dtype", "seed"),
    *("task", "dataset", "sample_id", "official", "repaired", "answer", "answer_tokens"),
    *("prompt_tokens", "image_tokens", "realised_budget", "kept_bytes", "full_bytes"),
    *("dropped_images", "dropped_tokens", "error", "decode_ms", "compress_ms", "prefill_ms", "digest"),
)
Results = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
_TIMES = {"decode_ms": "decode_ms_per_token", "compress_ms": "compress_ms", "prefill_ms": "prefill_ms"}


@dataclass(frozen=True)
class Run:
    """One run's folder and what its `run.json` says."""

    folder: Path
    about: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The run's name."""
        return str(self.about.get("name", self.folder.name))

    @property
    def configuration(self) -> Mapping[str, Any]:
        """What decides the answers: `model`, `benchmark`, `strategy` (each with its `name`), `seed`, `dtype`."""
        return self.about["configuration"]

    @cached_property
    def benchmark(self) -> Benchmark | None:
        """The benchmark that was run, where its last session found it; None where that is not known any more."""
        fields = {key: value for key, value in self.configuration["benchmark"].items() if key != "name"}
        for session in reversed(self.about.get("sessions", [])):
            root = session.get("resolved", {}).get("benchmark", {}).get("root")
            if root is not None:
                try:
                    return construct({**fields, "root": root})
                except LookmError:
                    return None
        return None

    @property
    def datasets(self) -> tuple[str, ...]:
        """Datasets with samples, in the benchmark's order where it is known."""
        there = sorted(path.parent.name for path in self.folder.glob("*/samples.jsonl"))
        order = [info.dataset for info in self.benchmark.datasets] if self.benchmark else []
        return tuple(sorted(there, key=lambda name: order.index(name) if name in order else len(order)))

    def records(self, dataset: str) -> dict[str, SampleRecord]:
        """The last record of each sample, by id as text. A line that is still being written is left out."""
        records: dict[str, SampleRecord] = {}
        for line in (self.folder / dataset / "samples.jsonl").read_bytes().split(b"\n")[:-1]:
            try:
                record = SampleRecord.from_line(line)
            except ValueError:
                continue
            records[str(record.sample_id)] = record
        return records


def find_runs(results: Results) -> list[Run]:
    """The runs in a results folder, or in the given run folders, by name.

    Args:
        results: a folder that holds run folders, one run folder, or several of either.

    Raises:
        LookmError: a folder that does not exist, or holds no run.
    """
    folders = [results] if isinstance(results, str | os.PathLike) else results
    runs: dict[Path, Run] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise LookmError(f"{folder} does not exist; run.py writes its results below results_dir (results/runs)")
        own = [folder] if (folder / "run.json").is_file() else [path.parent for path in folder.glob("*/run.json")]
        if not own:
            raise LookmError(f"{folder} holds no run (no <run>/run.json)")
        for path in own:
            about = read_json(path / "run.json")
            if isinstance(about, dict) and isinstance(about.get("configuration"), dict):
                runs[path.resolve()] = Run(path, about)
    return sorted(runs.values(), key=lambda run: run.name)


def collect(results: Results) -> pandas.DataFrame:
    """Every recorded sample of the runs in a folder (see `collect_runs`).

    Args:
        results: a folder that holds run folders, one run folder, or several of either.

    Raises:
        LookmError: a folder that does not exist, or holds no run.
    """
    return collect_runs(find_runs(results))


def collect_runs(runs: Iterable[Run]) -> pandas.DataFrame:
    """Every recorded sample of the runs, failed ones included, as one line each.

    Returns:
        A table with the columns `COLUMNS`. `alpha1`, `alpha2` are NaN and `semantics` is None where nothing is
        compressed; `official` and `repaired` are scores in [0, 1], NaN for a failed sample and where the data are gone
        and the run's own evaluation does not have the sample; `label` is what titles call model and benchmark; times
        are in milliseconds, sizes in bytes; `sample_id` is text.
    """
    import pandas

    annotations: dict[tuple[str, str], Dataset | None] = {}
    rows = [row for run in runs for dataset in run.datasets for row in _rows(run, dataset, annotations)]
    table = pandas.DataFrame(rows, columns=list(COLUMNS))
    numbers = ["alpha1", "alpha2", *PROTOCOLS, "realised_budget", *_TIMES]
    return table.astype(dict.fromkeys(numbers, "float64"))


def _rows(run: Run, dataset: str, annotations: dict[tuple[str, str], Dataset | None]) -> list[dict[str, Any]]:
    """The samples of one dataset of one run."""
    configuration, labels = run.configuration, run.about.get("labels", {})
    strategy = configuration["strategy"]
    names = [str(labels.get(group, configuration[group]["name"])) for group in ("model", "benchmark")]
    shared = {
        "run": run.name,
        "model": configuration["model"]["name"],
        "benchmark": configuration["benchmark"]["name"],
        "label": " · ".join(names),
        "strategy": strategy["name"],
        **{name: strategy.get(name) for name in ("alpha1", "alpha2", "semantics")},
        "dtype": configuration["dtype"],
        "seed": configuration["seed"],
        "task": _task(run, dataset),
        "dataset": dataset,
    }
    records = run.records(dataset)
    scores = _scores(run, dataset, records, annotations)
    return [
        {
            **shared,
            "sample_id": name,
            **{protocol: scores[protocol].get(name) for protocol in PROTOCOLS},
            **{field: getattr(record, field) for field in COLUMNS if hasattr(record, field) and field != "sample_id"},
            **{column: (record.times or {}).get(field) for column, field in _TIMES.items()},
        }
        for name, record in records.items()
    ]


def _task(run: Run, dataset: str) -> str | None:
    infos = run.benchmark.datasets if run.benchmark else ()
    return next((info.task for info in infos if info.dataset == dataset), None)


def _scores(
    run: Run,
    dataset: str,
    records: Mapping[str, SampleRecord],
    annotations: dict[tuple[str, str], Dataset | None],
) -> dict[str, dict[str, float]]:
    """Protocol → sample id → score: from the data that were run, or else (rounded) from the run's own evaluation."""
    if not any(record.answered for record in records.values()):
        return {protocol: {} for protocol in PROTOCOLS}
    data = _annotation(run, dataset, annotations)
    if data is None:
        return {
            "official": _written(read_json(run.folder / dataset / "eval_score.json")),
            "repaired": _written((read_json(run.folder / dataset / "repaired.json") or {}).get("eval_score")),
        }
    predictions = predictions_of(data, records, run.configuration["model"]["name"], {})
    names = [str(sample["sample_id"]) for sample in data.annotation["data"]]
    ids = [name for name in names if name in records and records[name].answered]
    return {
        protocol: dict(
            zip(
                ids,
                score_predictions(dataset, data.annotation, predictions, protocol=protocol)["scores"],
                strict=True,
            )
        )
        for protocol in PROTOCOLS
    }


def _annotation(run: Run, dataset: str, known: dict[tuple[str, str], Dataset | None]) -> Dataset | None:
    """The dataset as it was run; None where it is not on this disk any more, or has changed."""
    benchmark = run.benchmark
    if benchmark is None:
        return None
    key = (json.dumps({**run.configuration["benchmark"], "root": str(benchmark.root)}, sort_keys=True), dataset)
    if key not in known:
        known[key] = None
        for info in benchmark.datasets:
            if info.dataset == dataset:
                with suppress(LookmError):
                    known[key] = read_dataset(benchmark, info, None)
    found = known[key]
    same = found is not None and run.about.get("data", {}).get(dataset) in (None, found.data)
    return found if same else None


def _written(entries: Any) -> dict[str, float]:
    """Scores of an `eval_score.json`, three decimals each."""
    if not isinstance(entries, list):
        return {}
    return {str(entry["id"]): float(entry["score"]) for entry in entries if isinstance(entry, dict)}
