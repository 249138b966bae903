"""What a run amounts to, per task: scores, budgets, bytes, changed answers, speed. Read from run folders only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.benchmark import DatasetInfo
from benchmarks.evaluation.cells import TASK_MEAN, Samples, Totals, mean_column, task_columns, totals
from benchmarks.evaluation.comparable import comparable
from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.store import RunFolder
from lookm.registry import load_strategy


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


@dataclass(frozen=True)
class Summary:
    """A run's totals by task code, and over all tasks, in which each task counts alike.

    `commits` are those of this program that computed samples, other than the present one.
    """

    settings: Settings
    model_label: str
    rows: Mapping[str, Totals]
    mean: Totals
    commits: tuple[str, ...] = ()


def summarise(
    settings: Settings, model_label: str, results: Sequence[DatasetResult], commits: tuple[str, ...] = ()
) -> Summary:
    """Sums up the selected samples of a run."""
    return Summary(settings, model_label, *task_totals(results), commits)


def task_totals(results: Sequence[DatasetResult]) -> tuple[dict[str, Totals], Totals]:
    """The totals of each task, and those over all of them."""
    infos = [result.info for result in results]
    samples = {result.info.dataset: Samples.of(result.records, result.selected) for result in results}
    reference = {result.info.dataset: Samples.of((result.reference or {}).values()) for result in results}
    columns = task_columns(dict.fromkeys(info.task for info in infos), infos, samples)
    rows = {column.name: totals(column, samples, reference) for column in columns}
    return rows, totals(mean_column(columns, TASK_MEAN), samples, reference)


def folder_results(folder: RunFolder, selected: Mapping[DatasetInfo, Collection[str]]) -> list[DatasetResult]:
    """The selected samples of a run: of each dataset the ids of those that were asked for."""
    reference = reference_folder(folder)
    results = []
    for info, names in selected.items():
        records = folder.records(info.dataset)
        others = None if reference is None else reference.records(info.dataset)
        own = tuple(records[name] for name in names if name in records)
        results.append(DatasetResult(info, own, len(names), others))
    return results


def recorded_results(folder: RunFolder, names: Iterable[str]) -> list[DatasetResult]:
    """All samples of some datasets of a run, also of those that `run.json` does not know."""
    selected = {}
    for name in names:
        records = folder.records(name)
        first = next(iter(records.values()), None)
        unknown = {"task": first.task if first else "", "metric": "accuracy", "samples": 0, "chance": None}
        selected[DatasetInfo(name, **folder.about.get("datasets", {}).get(name, unknown))] = records.keys()
    return folder_results(folder, selected)


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
