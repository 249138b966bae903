"""What a run amounts to, per task: scores, budgets, bytes, changed answers, speed. Read from run folders only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from typing import Any

from benchmarks.evaluation.benchmark import DatasetInfo
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
        decode_ms: median time of a decode step, in milliseconds; None where other strategies decoded in the same step.
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
    return Summary(settings, model_label, rows, mean, commits)


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
    there = [value for value in listed if value is not None]
    if not there or (all_needed and len(there) < len(listed)):
        return None
    return fmean(there)


def full_run(settings: Settings) -> Settings:
    """The same run with the full cache."""
    kept = {key: value for key, value in settings.deviations.items() if not key.startswith("strategy.")}
    return replace(settings, strategy=load_strategy("full"), strategy_config={}, deviations=kept)


def comparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two `run.json` tell of runs that differ in nothing but the strategy."""
    first, second = one.get("configuration", {}), other.get("configuration", {})
    if any(first.get(name) != second.get(name) for name in ("model", "benchmark", "seed", "dtype")):
        return False
    if one.get("weights") != other.get("weights"):
        return False
    data, others = one.get("data", {}), other.get("data", {})
    return all(data[name] == others[name] for name in data if name in others)


def other_commits(about: Mapping[str, Any], present: str | None) -> tuple[str, ...]:
    """Commits, other than the present one, that sessions in a `run.json` were computed by."""
    commits = [session.get("git", {}).get("commit") for session in about.get("sessions", [])]
    return tuple(dict.fromkeys(commit for commit in commits if commit and present and commit != present))


def reference_folder(settings: Settings, folder: RunFolder) -> RunFolder | None:
    """The full cache's folder, where that run exists and was made from the same things."""
    reference = RunFolder(full_run(settings).folder)
    return reference if reference.exists and comparable(folder.about, reference.about) else None


def _task_row(task: str, results: Sequence[DatasetResult]) -> TaskRow:
    records = [record for result in results for record in result.records]
    answered = [record for record in records if record.answered]
    scores: dict[Protocol, float] = {}
    for protocol in PROTOCOLS:
        mean = mean_of(result.mean_score(protocol) for result in results)
        if mean is not None:
            scores[protocol] = mean
    own: dict[str, Sequence[int]] = {}
    reference: dict[str, Sequence[int]] = {}
    for result in results:
        for name, tokens in _answers(result.records):
            own[f"{result.info.dataset}/{name}"] = tokens
        for name, tokens in _answers((result.reference or {}).values()):
            reference[f"{result.info.dataset}/{name}"] = tokens
    changed, compared = changed_share(own, reference)
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
    )


def _own_step(record: SampleRecord) -> float | None:
    """Milliseconds of a decode step, if only this strategy's rows were in it."""
    times = record.times or {}
    prompts = times.get("batch")
    return times.get("decode_ms_per_token") if times.get("decode_rows", prompts) == prompts else None


def _answers(records: Iterable[SampleRecord]) -> list[tuple[str, Sequence[int]]]:
    return [(str(record.sample_id), record.answer_tokens) for record in records if record.answered]
