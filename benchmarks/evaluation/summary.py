"""What a run amounts to, per task: scores, budgets, bytes, changed answers, speed. Read from run folders only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from benchmarks.benchmark import DatasetInfo
from benchmarks.evaluation.comparable import comparable
from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.store import RunFolder
from benchmarks.milebench import PROTOCOLS, mean_weights
from lookm.registry import load_strategy

Protocol = str


@dataclass(frozen=True)
class DatasetResult:
    """The selected samples of one dataset.

    Attributes:
        info: name, task, metric, chance.
        records: of the selected samples, in the annotation's order; samples not computed yet are absent.
        selected: how many samples were asked for.
        reference: the full cache's records of the same samples by id; None where there is no such run.
    """

    info: DatasetInfo
    records: tuple[SampleRecord, ...]
    selected: int
    reference: Mapping[str, SampleRecord] | None

    @property
    def chance(self) -> float | None:
        """Mean chance level of the samples; the dataset's own where there are none yet."""
        levels = [record.chance for record in self.records]
        return self.info.chance if not levels else None if None in levels else _mean(levels)

    def mean_score(self, protocol: Protocol) -> float | None:
        """Mean over the answered samples."""
        return _mean(record.scores.get(protocol) for record in self.records if record.answered and record.scores)

    def changed(self) -> tuple[float | None, int]:
        """Share of answers that differ, token by token, from the full cache's, and how many could be compared."""
        reference = self.reference or {}
        pairs = [
            (record.answer_tokens, reference[str(record.sample_id)].answer_tokens)
            for record in self.records
            if record.answered and str(record.sample_id) in reference and reference[str(record.sample_id)].answered
        ]
        return _mean(tuple(own) != tuple(other) for own, other in pairs), len(pairs)


@dataclass(frozen=True)
class TaskRow:
    """One line of a run's table; None where there is nothing to say.

    Attributes:
        task: task code, or "mean".
        n: answered samples; failed: samples without an answer; missing: samples not computed yet.
        scores: protocol → mean over the task's datasets of the mean over their answered samples, in [0, 1].
        chance: the same mean of the datasets' chance levels.
        budget: mean share of the full cache's bytes that was kept; kept_bytes: mean key and value bytes of a sample.
        changed: share of answers that differ from the full cache's; compared: of how many samples.
        decode_ms: median time of a decode step, in milliseconds, over the `timed` samples in whose steps no other
            strategy decoded; None where there are none.
    """

    task: str
    n: int
    failed: int
    missing: int
    scores: Mapping[Protocol, float]
    chance: float | None
    budget: float | None
    kept_bytes: float | None
    changed: float | None
    compared: int
    decode_ms: float | None
    timed: int = 0


@dataclass(frozen=True)
class Summary:
    """A run's rows, one per task, and their mean: scores, chance and changed answers as the mean of the tasks'.

    `commits` are those of this program that computed samples, other than the present one.
    """

    settings: Settings
    model_label: str
    rows: tuple[TaskRow, ...]
    mean: TaskRow
    commits: tuple[str, ...] = ()


def summarise(
    settings: Settings, model_label: str, results: Sequence[DatasetResult], commits: tuple[str, ...] = ()
) -> Summary:
    """Sums up the selected samples of a run."""
    rows, mean = task_rows(results)
    return Summary(settings, model_label, rows, mean, commits)


def task_rows(results: Sequence[DatasetResult]) -> tuple[tuple[TaskRow, ...], TaskRow]:
    """A row for each task, and their mean, in which each task counts alike."""
    tasks = dict.fromkeys(result.info.task for result in results)
    rows = tuple(_row(task, [result for result in results if result.info.task == task]) for task in tasks)
    return rows, _row("mean", results)


def folder_results(folder: RunFolder, *names: str) -> list[DatasetResult]:
    """All samples of a run's datasets, or of the named ones."""
    reference = reference_folder(folder)
    results = []
    for name in names or folder.datasets:
        records = tuple(folder.records(name).values())
        known = folder.about.get("datasets", {}).get(name)
        if known is None:
            known = {"task": records[0].task if records else "", "metric": "accuracy", "samples": 0, "chance": None}
        others = None if reference is None else reference.records(name)
        results.append(DatasetResult(DatasetInfo(name, **known), records, len(records), others))
    return results


def full_run(settings: Settings) -> Settings:
    """The same run with the full cache."""
    kept = {key: value for key, value in settings.deviations.items() if not key.startswith(("strategy.", "storage."))}
    return replace(settings, strategy=load_strategy("full"), strategy_config={}, deviations=kept)


def other_commits(about: Mapping[str, Any], present: str | None) -> tuple[str, ...]:
    """Commits, other than the present one, that sessions in a `run.json` were computed by."""
    commits = [session.get("git", {}).get("commit") for session in about.get("sessions", [])]
    return tuple(dict.fromkeys(commit for commit in commits if commit and present and commit != present))


def reference_folder(folder: RunFolder) -> RunFolder | None:
    """The full cache's folder beside a run that compresses, where it exists and was made from the same things."""
    name = folder.about.get("reference")
    if not name:
        return None
    reference = RunFolder(folder.path.parent / str(name))
    return reference if reference.exists and comparable(folder.about, reference.about) else None


def _row(name: str, results: Sequence[DatasetResult]) -> TaskRow:
    records = [record for result in results for record in result.records]
    answered = [record for record in records if record.answered]
    scores = {
        protocol: _task_mean(results, {result.info.dataset: result.mean_score(protocol) for result in results})
        for protocol in PROTOCOLS
    }
    levels = {result.info.dataset: result.chance for result in results}
    changes = {result.info.dataset: result.changed() for result in results}
    timed = [step for record in answered if (step := _own_step(record)) is not None]
    return TaskRow(
        task=name,
        n=len(answered),
        failed=len(records) - len(answered),
        missing=sum(result.selected for result in results) - len(records),
        scores={protocol: score for protocol, score in scores.items() if score is not None},
        chance=None if None in levels.values() else _task_mean(results, levels),
        budget=_mean(record.kept_bytes / record.full_bytes for record in answered if record.full_bytes),
        kept_bytes=_mean(record.kept_bytes for record in answered),
        changed=_task_mean(results, {dataset: share for dataset, (share, _) in changes.items()}),
        compared=sum(compared for _, compared in changes.values()),
        decode_ms=median(timed) if timed else None,
        timed=len(timed),
    )


def _task_mean(results: Sequence[DatasetResult], values: Mapping[str, float | None]) -> float | None:
    """The mean over tasks of the mean over each task's datasets, those without a value left out."""
    tasks: dict[str, list[str]] = {}
    for result in results:
        tasks.setdefault(result.info.task, []).append(result.info.dataset)
    known = {dataset: value for dataset, value in values.items() if value is not None}
    weights = mean_weights(tuple(map(tuple, tasks.values())), known)
    return sum(weight * known[dataset] for dataset, weight in weights.items()) if weights else None


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of the values that are there; None where there are none."""
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _own_step(record: SampleRecord) -> float | None:
    """Milliseconds of a decode step, if only this strategy's rows were in it."""
    times = record.times or {}
    prompts = times.get("batch")
    return times.get("decode_ms_per_token") if times.get("decode_rows", prompts) == prompts else None
