"""The cells of a table: scores, their differences from the full cache with intervals, budgets and changed answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.benchmark import DatasetInfo
from benchmarks.milebench import datasets_of
from benchmarks.tables.intervals import RESAMPLES, Interval, dataset_seed, interval, resampled_means
from lookm.errors import LookmError

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Column:
    """One column: a weighted mean of datasets' means.

    Attributes:
        name: what it is called.
        weights: dataset → weight; they add up to 1.
        datasets: how many datasets the whole column has; samples: how many samples.
        chance: the same mean of the datasets' chance levels; None where one is not known.
    """

    name: str
    weights: Mapping[str, float]
    datasets: int
    samples: int
    chance: float | None = None


@dataclass(frozen=True)
class Cell:
    """One run's result in one column; scores and budgets in [0, 1], None where there is nothing to say.

    Attributes:
        score: the weighted mean of its datasets' mean scores over the answered samples.
        n: answered samples; failed: samples without an answer.
        against_full: the difference from the full cache over the samples that both answered, with its interval.
        paired: how many samples those are.
        budget: mean realised budget of the answered samples.
        changed: share of paired samples whose answer differs, token by token, from the full cache's.
        first_change: median place, from 1, of the first token that differs, over the answers that do.
    """

    score: float
    n: int
    failed: int
    against_full: Interval | None = None
    paired: int = 0
    budget: float | None = None
    changed: float | None = None
    first_change: float | None = None


def task_columns(
    names: Sequence[str], infos: Sequence[DatasetInfo], present: Sequence[str], selected: Sequence[DatasetInfo]
) -> list[Column]:
    """Columns named by task codes or groups: the mean over their tasks of the mean over each task's datasets.

    Args:
        names: such as T-1 and NH; those without a selected dataset are left out.
        infos: all datasets of the benchmark.
        present: datasets that any run has; the others of a column are left out of its mean.
        selected: datasets that the experiment asks for.
    """
    columns = []
    for name in names:
        try:
            whole = datasets_of(name, infos)
        except LookmError:
            continue  # the benchmark has no such task
        if not set(whole) & set(selected):
            continue
        there = [info for info in whole if info.dataset in present] or list(whole)
        tasks = dict.fromkeys(info.task for info in there)
        sizes = {task: sum(info.task == task for info in there) for task in tasks}
        weights = {info.dataset: 1 / (len(tasks) * sizes[info.task]) for info in there}
        columns.append(Column(name, weights, len(whole), sum(info.samples for info in whole), _chance(weights, there)))
    return columns


def dataset_columns(datasets: Sequence[DatasetInfo]) -> list[Column]:
    """One column for each dataset."""
    return [Column(info.dataset, {info.dataset: 1.0}, 1, info.samples, info.chance) for info in datasets]


def mean_column(columns: Sequence[Column]) -> Column:
    """The mean of the given columns."""
    weights: dict[str, float] = {}
    for column in columns:
        for dataset, weight in column.weights.items():
            weights[dataset] = weights.get(dataset, 0.0) + weight / len(columns)
    levels = [column.chance for column in columns]
    chance = None if None in levels else fmean(level for level in levels if level is not None)
    return Column("mean", weights, sum(c.datasets for c in columns), sum(c.samples for c in columns), chance)


def _chance(weights: Mapping[str, float], infos: Sequence[DatasetInfo]) -> float | None:
    levels = {info.dataset: info.chance for info in infos}
    known = {dataset: level for dataset, level in levels.items() if level is not None}
    return None if len(known) < len(weights) else sum(weight * known[name] for name, weight in weights.items())


def compute_cells(
    table: pandas.DataFrame,
    columns: Sequence[Column],
    *,
    full: str | None,
    protocol: str,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> dict[tuple[str, str], Cell]:
    """The cells that the runs in a table can fill.

    Args:
        table: what `collect_runs` made of the runs, `check_same_samples` passed.
        columns: the columns.
        full: name of the run with the full cache; None where there is none.
        protocol: "official" or "repaired".
        seed, resamples: of the bootstrap.

    Returns:
        (run, column's name) → cell. A run that lacks a dataset of a column, or its scores, has no cell there.
    """
    parts = {(str(run), str(dataset)): rows for (run, dataset), rows in table.groupby(["run", "dataset"], sort=False)}
    tokens = {
        (dataset, sample): answer
        for (run, dataset), rows in parts.items()
        if run == full
        for sample, answer in zip(rows.sample_id, rows.answer_tokens, strict=True)
        if answer
    }
    drawn = {} if full is None else _differences(table, full, protocol, seed, resamples)
    cells: dict[tuple[str, str], Cell] = {}
    for run in dict.fromkeys(str(name) for name in table.run):
        for column in columns:
            own = {dataset: parts.get((run, dataset)) for dataset in column.weights}
            there = {dataset: rows for dataset, rows in own.items() if rows is not None}
            if len(there) == len(own) and all(rows[protocol].notna().any() for rows in there.values()):
                cells[run, column.name] = _cell(run, column, there, tokens, drawn, protocol, is_full=run == full)
    return cells


def _cell(
    run: str,
    column: Column,
    parts: Mapping[str, pandas.DataFrame],
    tokens: Mapping[tuple[str, str], Sequence[int]],
    drawn: Mapping[tuple[str, str], tuple[float, NDArray[np.float64], int]],
    protocol: str,
    *,
    is_full: bool,
) -> Cell:
    answered = {dataset: rows[rows.error.isna()] for dataset, rows in parts.items()}
    score = sum(weight * float(parts[dataset][protocol].mean()) for dataset, weight in column.weights.items())
    budgets = [float(value) for rows in answered.values() for value in rows.realised_budget.dropna()]
    against, paired, places = None, 0, []
    if not is_full and all((run, dataset) in drawn for dataset in column.weights):
        entries = [(weight, *drawn[run, dataset]) for dataset, weight in column.weights.items()]
        difference = sum(weight * observed for weight, observed, _, _ in entries)
        resampled = np.sum([weight * means for weight, _, means, _ in entries], axis=0)
        against, paired = interval(difference, resampled), sum(n for *_, n in entries)
        places = [
            _first_difference(answer, tokens[dataset, sample])
            for dataset, rows in answered.items()
            for sample, answer in zip(rows.sample_id, rows.answer_tokens, strict=True)
            if (dataset, sample) in tokens
        ]
    changes = [place for place in places if place]
    return Cell(
        score=score,
        n=sum(map(len, answered.values())),
        failed=sum(map(len, parts.values())) - sum(map(len, answered.values())),
        against_full=against,
        paired=paired,
        budget=fmean(budgets) if budgets else None,
        changed=len(changes) / len(places) if places else None,
        first_change=median(changes) if changes else None,
    )


def _first_difference(answer: Sequence[int], reference: Sequence[int]) -> int:
    """The place, from 1, of the first token that differs; 0 where the answers are the same."""
    for place, (own, other) in enumerate(zip(answer, reference, strict=False), start=1):
        if own != other:
            return place
    return 0 if len(answer) == len(reference) else min(len(answer), len(reference)) + 1


def _differences(
    table: pandas.DataFrame, full: str, protocol: str, seed: int, resamples: int
) -> dict[tuple[str, str], tuple[float, NDArray[np.float64], int]]:
    """(run, dataset) → mean difference from the full cache, its bootstrap (R,) and how many samples were paired.

    Runs that answered the same samples share one draw.
    """
    found: dict[tuple[str, str], tuple[float, NDArray[np.float64], int]] = {}
    for dataset, group in table.groupby("dataset", sort=False):
        scores = group.pivot(index="sample_id", columns="run", values=protocol)
        if full not in scores:
            continue
        differences = scores.drop(columns=full).sub(scores[full], axis=0)
        by_samples: dict[bytes, list[str]] = {}
        for run in differences:
            by_samples.setdefault(differences[run].notna().to_numpy().tobytes(), []).append(str(run))
        for runs in by_samples.values():
            values = differences[runs].dropna().to_numpy()
            if len(values):
                means = resampled_means(values, seed=dataset_seed(seed, str(dataset)), resamples=resamples)
                for place, run in enumerate(runs):
                    found[run, str(dataset)] = float(values[:, place].mean()), means[:, place], len(values)
    return found
