"""The cells of a table: scores, differences from a baseline run with intervals, realised bytes and changed answers."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.benchmark import DatasetInfo
from benchmarks.milebench import PAPER_COLUMNS, Tree, datasets_of, mean_weights
from benchmarks.tables.intervals import RESAMPLES, Interval, dataset_seed, interval, resampled_means
from lookm.answers import first_difference
from lookm.errors import LookmError

if TYPE_CHECKING:
    import pandas

FEWEST_PAIRS = 20
"""Pairs a dataset must have for an interval: with fewer, resampling shows less spread than there is."""


@dataclass(frozen=True)
class Column:
    """One column: a mean of means of datasets' means.

    Attributes:
        name: what it is called.
        tree: the datasets, nested as they are averaged: a column's tasks, a task's datasets.
        infos: the same datasets with what the complete benchmark has of them.
    """

    name: str
    tree: Tree
    infos: tuple[DatasetInfo, ...]

    @property
    def samples(self) -> int:
        """How many samples the complete column has."""
        return sum(info.samples for info in self.infos)


@dataclass(frozen=True)
class Cell:
    """One run's result in one column; scores, budgets and shares in [0, 1], None where there is nothing to say.

    Attributes:
        score: the mean over the column's datasets that the run has of their mean scores over answered samples.
        n: answered samples; failed: samples without an answer; datasets: names of the datasets that they are of.
        chance: the same mean of the samples' chance levels.
        budget: mean share of the full cache's bytes that was kept; tokens: of the prompt's tokens.
        kept_bytes: mean bytes of a sample's compressed cache.
        lost_images: samples that lost images to the context limit.
        decode_ms: median decode step of the `timed` samples whose steps no other strategy shared.
        difference: from the baseline over the `paired` samples that both answered, of datasets that both have;
            interval: where the true difference lies at 95 %, None with fewer than `FEWEST_PAIRS` pairs in a dataset.
        changed: share of paired samples whose answer differs, token by token, from the baseline's.
        first_change: median place, from 1, of the first token that differs, over the answers that do.
    """

    score: float
    n: int
    failed: int
    datasets: tuple[str, ...]
    chance: float | None = None
    budget: float | None = None
    tokens: float | None = None
    kept_bytes: float | None = None
    lost_images: int = 0
    decode_ms: float | None = None
    timed: int = 0
    difference: float | None = None
    interval: Interval | None = None
    paired: int = 0
    changed: float | None = None
    first_change: float | None = None

    @property
    def direction(self) -> int:
        """1 or -1 where the interval lies above or below zero, else 0."""
        return self.interval.direction if self.interval else 0


def task_columns(names: Iterable[str], infos: Sequence[DatasetInfo], selected: Collection[str]) -> list[Column]:
    """Columns named by task codes or groups, such as T-1 and NH; those without a selected dataset are left out.

    Args:
        names: the columns.
        infos: all datasets of the benchmark.
        selected: names of the datasets that are asked for.
    """
    columns = []
    for name in names:
        try:
            whole = datasets_of(name, infos)
        except LookmError:
            continue  # the benchmark has no such task
        if any(info.dataset in selected for info in whole):
            tasks = dict.fromkeys(info.task for info in whole)
            tree = tuple(tuple(info.dataset for info in whole if info.task == task) for task in tasks)
            columns.append(Column(name, tree, tuple(whole)))
    return columns


def dataset_columns(infos: Iterable[DatasetInfo]) -> list[Column]:
    """One column for each dataset."""
    return [Column(info.dataset, info.dataset, (info,)) for info in infos]


def mean_column(columns: Sequence[Column], name: str) -> Column:
    """The mean of the given columns."""
    return Column(name, tuple(column.tree for column in columns), tuple(i for column in columns for i in column.infos))


TASK_MEAN, COLUMN_MEAN, DATASET_MEAN = "task mean", "column mean", "dataset mean"
"""Three means that differ: over task codes, over the paper's columns (N-1 and N-2 are one, NH), over datasets."""


def benchmark_columns(infos: Sequence[DatasetInfo], selected: Collection[str], *, paper: bool) -> list[Column]:
    """The paper's columns or one for each task code, their mean last where they are several."""
    names = PAPER_COLUMNS if paper else dict.fromkeys(info.task for info in infos)
    columns = task_columns(names, infos, selected)
    mean = [mean_column(columns, COLUMN_MEAN if paper else TASK_MEAN)] if len(columns) > 1 else []
    return [*columns, *mean]


class Runs:
    """The samples of runs that may be compared, ready for cells against any of them.

    Args:
        frame: of `read_frame`, checked with `check_same_samples` or restricted by `common_samples`.
        protocol: "official" or "repaired".
        seed, resamples: of the bootstrap.
    """

    def __init__(self, frame: pandas.DataFrame, protocol: str, *, seed: int = 0, resamples: int = RESAMPLES) -> None:
        self.names = list(dict.fromkeys(map(str, frame.run)))
        self._protocol, self._seed, self._resamples = protocol, seed, resamples
        self._parts: dict[tuple[str, str], pandas.DataFrame] = {
            (str(run), str(dataset)): rows for (run, dataset), rows in frame.groupby(["run", "dataset"], sort=False)
        }
        self._scores = {
            str(dataset): rows.pivot(index="sample_id", columns="run", values=protocol)
            for dataset, rows in frame.groupby("dataset", sort=False)
        }
        self._answers: dict[str, dict[tuple[str, str], Sequence[int]]] = {}
        self._drawn: dict[tuple[str, bytes], dict[str, NDArray[np.float64]]] = {}

    def cells(
        self,
        columns: Sequence[Column],
        baseline: str | None,
        *,
        names: Sequence[str] | None = None,
        whole: bool = False,
    ) -> dict[tuple[str, str], Cell]:
        """(run, column's name) → cell; a run that has no answer to any sample of a column has no cell there.

        Args:
            columns: the columns.
            baseline: name of the run that differences are from; None where there is none.
            names: which runs; None takes all.
            whole: leave out cells of runs that lack a dataset of the column that another run has, so that the scores of
                a column are means over the same datasets.
        """
        runs = self.names if names is None else names
        cells = {(run, column.name): self._cell(run, column, baseline) for run in runs for column in columns}
        needed = {
            column.name: sum(i.dataset in self._scores for i in column.infos) if whole else 0 for column in columns
        }
        return {key: cell for key, cell in cells.items() if cell and len(cell.datasets) >= needed[key[1]]}

    def _cell(self, run: str, column: Column, baseline: str | None) -> Cell | None:
        parts = {i.dataset: self._parts[run, i.dataset] for i in column.infos if (run, i.dataset) in self._parts}
        means = {dataset: float(rows[self._protocol].mean()) for dataset, rows in parts.items()}
        weights = mean_weights(column.tree, {dataset for dataset, mean in means.items() if mean == mean})
        if not weights:
            return None
        answered = {dataset: rows[rows.error.isna()] for dataset, rows in parts.items()}
        levels = {dataset: float(part.chance.mean(skipna=False)) for dataset, part in answered.items()}
        chance = sum(weight * levels[dataset] for dataset, weight in weights.items())

        def values(quantity: str) -> NDArray[np.float64]:
            joined = np.concatenate([part[quantity].to_numpy(dtype=np.float64) for part in answered.values()])
            return joined[~np.isnan(joined)]

        kept, full, times = values("kept_bytes"), values("full_bytes"), values("decode_ms")
        n = sum(map(len, answered.values()))
        return Cell(
            score=sum(weight * means[dataset] for dataset, weight in weights.items()),
            n=n,
            failed=sum(map(len, parts.values())) - n,
            datasets=tuple(weights),
            chance=chance if chance == chance else None,
            budget=_mean(kept[full > 0] / full[full > 0]),
            tokens=_mean(values("realised_budget")),
            kept_bytes=_mean(kept),
            lost_images=sum(int((part.dropped_images > 0).sum()) for part in parts.values()),
            decode_ms=float(np.median(times)) if len(times) else None,
            timed=len(times),
            **(self._against(run, baseline, column) if baseline is not None and baseline != run else {}),
        )

    def _against(self, run: str, baseline: str, column: Column) -> dict[str, Any]:
        """The fields of a cell that compare it with the baseline; none where no sample can be compared."""
        pairs = {info.dataset: pair for info in column.infos if (pair := self._difference(run, baseline, info.dataset))}
        weights = mean_weights(column.tree, pairs)
        if not weights:
            return {}
        difference = sum(weight * pairs[dataset][0] for dataset, weight in weights.items())
        draws = sum((weight * pairs[dataset][1] for dataset, weight in weights.items()), np.zeros(self._resamples))
        enough = all(pairs[dataset][2] >= FEWEST_PAIRS for dataset in weights)
        own, other = self._tokens(run), self._tokens(baseline)
        places = [
            first_difference(answer, other[key]) for key, answer in own.items() if key in other and key[0] in weights
        ]
        changes = [place for place in places if place is not None]
        return {
            "difference": difference,
            "interval": interval(difference, draws) if enough else None,
            "paired": sum(pairs[dataset][2] for dataset in weights),
            "changed": len(changes) / len(places) if places else None,
            "first_change": median(changes) if changes else None,
        }

    def _difference(self, run: str, baseline: str, dataset: str) -> tuple[float, NDArray[np.float64], int] | None:
        """Mean difference over the samples that both answered, its bootstrap (R,) and how many they are.

        All runs that answered the same samples share one draw of them, so that any two can be compared.
        """
        scores = self._scores.get(dataset)
        if scores is None or run not in scores or baseline not in scores:
            return None
        both = (scores[run].notna() & scores[baseline].notna()).to_numpy()
        if not both.any():
            return None
        key = dataset, both.tobytes()
        if key not in self._drawn:
            whole = scores[both].dropna(axis="columns")
            seed = dataset_seed(self._seed, dataset)
            means = resampled_means(whole.to_numpy(), seed=seed, resamples=self._resamples)
            self._drawn[key] = dict(zip(map(str, whole.columns), means.T, strict=True))
        drawn = self._drawn[key]
        return float((scores[run] - scores[baseline])[both].mean()), drawn[run] - drawn[baseline], int(both.sum())

    def _tokens(self, run: str) -> Mapping[tuple[str, str], Sequence[int]]:
        """(dataset, sample) → tokens of the answer."""
        if run not in self._answers:
            parts = {dataset: rows[rows.error.isna()] for (name, dataset), rows in self._parts.items() if name == run}
            self._answers[run] = {
                (dataset, str(sample)): tokens
                for dataset, rows in parts.items()
                for sample, tokens in zip(rows.sample_id, rows.answer_tokens, strict=True)
            }
        return self._answers[run]


def printed_difference(score: float, other: float, difference: float) -> float:
    """A difference in points, such that it is that of the two printed scores wherever it is a difference of the two.

    47.17 − 43.44 is 3.73; printed as 47.2 and 43.4, their difference must not be printed as 3.7. Where the scores are
    over more samples than the difference, it is rounded by itself.

    Args:
        score, other, difference: in [0, 1].
    """
    if abs(score - other - difference) < 1e-9:
        return round(round(100 * score, 1) - round(100 * other, 1), 1)
    return round(100 * difference, 1)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
