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
from benchmarks.milebench import PROTOCOLS
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
        return (
            mean_of([record.chance for record in self.records], all_needed=True) if self.records else self.info.chance
        )

    def mean_score(self, protocol: Protocol) -> float | None:
        """Mean over the answered samples."""
        return mean_of(record.scores.get(protocol) for record in self.records if record.answered and record.scores)


@dataclass(frozen=True)
class TaskRow:
    """One line of a run's table; None where there is nothing to say.

    Attributes:
        task: task code, or "mean".
        n: answered samples; failed: samples without an answer; missing: samples not computed yet.
        scores: protocol → mean over the task's datasets of the mean over their answered samples, in [0, 1].
        chance: the same mean of the datasets' chance levels.
        budget: mean realised budget of the samples; kept_bytes: mean key and value bytes of a sample.
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
    """A row for each task, and their mean."""
    tasks = dict.fromkeys(result.info.task for result in results)
    rows = tuple(_task_row(task, [result for result in results if result.info.task == task]) for task in tasks)
    whole = _task_row("mean", results)
    protocols = dict.fromkeys(name for row in rows for name in row.scores)
    mean = replace(
        whole,
        scores={name: fmean(row.scores[name] for row in rows if name in row.scores) for name in protocols},
        chance=mean_of([row.chance for row in rows], all_needed=True),
        changed=mean_of([row.changed for row in rows]),
    )
    return rows, mean


def folder_results(folder: RunFolder, *names: str) -> list[DatasetResult]:
    """All samples of a run's datasets, or of the named ones.

    Raises:
        LookmError: they were computed before scores were recorded.
    """
    reference = reference_folder(folder)
    results = []
    for name in names or folder.datasets:
        records = tuple(folder.scored_records(name).values())
        known = folder.about.get("datasets", {}).get(name)
        if known is None:
            known = {"task": records[0].task if records else "", "metric": "accuracy", "samples": 0, "chance": None}
        others = None if reference is None else reference.records(name)
        results.append(DatasetResult(DatasetInfo(name, **known), records, len(records), others))
    return results


def changed_share(
    answers: Mapping[str, Sequence[int]], reference: Mapping[str, Sequence[int]]
) -> tuple[float | None, int]:
    """Share of answers that differ, token by token, from the reference's, and how many could be compared.

    Args:
        answers: sample id → token ids.
        reference: the same of another run; only samples in both count.
    """
    shared = [name for name in answers if name in reference]
    if not shared:
        return None, 0
    return fmean(list(answers[name]) != list(reference[name]) for name in shared), len(shared)


def mean_of(values: Iterable[float | None], *, all_needed: bool = False) -> float | None:
    """Mean of the values that are there; None where there are none, or where one is missing and all are needed."""
    listed = list(values)
    known = [value for value in listed if value is not None]
    if not known or (all_needed and len(known) < len(listed)):
        return None
    return fmean(known)


def full_run(settings: Settings) -> Settings:
    """The same run with the full cache."""
    kept = {key: value for key, value in settings.deviations.items() if not key.startswith("strategy.")}
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


def _task_row(task: str, results: Sequence[DatasetResult]) -> TaskRow:
    records = [record for result in results for record in result.records]
    answered = [record for record in records if record.answered]
    scores: dict[Protocol, float] = {}
    for protocol in PROTOCOLS:
        mean = mean_of(result.mean_score(protocol) for result in results)
        if mean is not None:
            scores[protocol] = mean
    answers: dict[str, Sequence[int]] = {}
    reference: dict[str, Sequence[int]] = {}
    for result in results:
        for name, tokens in _answers(result.records):
            answers[f"{result.info.dataset}/{name}"] = tokens
        for name, tokens in _answers((result.reference or {}).values()):
            reference[f"{result.info.dataset}/{name}"] = tokens
    changed, compared = changed_share(answers, reference)
    timed = [step for record in answered if (step := _own_step(record)) is not None]
    return TaskRow(
        task=task,
        n=len(answered),
        failed=len(records) - len(answered),
        missing=sum(result.selected for result in results) - len(records),
        scores=scores,
        chance=mean_of([result.chance for result in results], all_needed=True),
        budget=mean_of([record.realised_budget for record in answered]),
        kept_bytes=mean_of([record.kept_bytes for record in answered]),
        changed=changed,
        compared=compared,
        decode_ms=median(timed) if timed else None,
        timed=len(timed),
    )


def _own_step(record: SampleRecord) -> float | None:
    """Milliseconds of a decode step, if only this strategy's rows were in it."""
    times = record.times or {}
    prompts = times.get("batch")
    return times.get("decode_ms_per_token") if times.get("decode_rows", prompts) == prompts else None


def _answers(records: Iterable[SampleRecord]) -> list[tuple[str, Sequence[int]]]:
    return [(str(record.sample_id), record.answer_tokens) for record in records if record.answered]
