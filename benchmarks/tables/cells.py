"""The cells of a table: what runs amount to, and differences from a baseline run with intervals.

Paired bootstrap: how much of a difference between two runs over the same samples could be chance. Percentile intervals
(Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Samples are drawn within each dataset, as
many as it has, so that what is resampled is the score that tables show: a mean of datasets' means.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.evaluation.cells import Column, Samples, Totals, totals
from benchmarks.milebench import mean_weights

if TYPE_CHECKING:
    import pandas

FEWEST_PAIRS = 20
"""Pairs a dataset must have for an interval: with fewer, resampling shows less spread than there is."""
RESAMPLES = 10_000
LEVEL = 0.95
_ROUNDING = 1e-12
_BLOCK = 1 << 22  # random numbers drawn at once


@dataclass(frozen=True)
class Interval:
    """A difference of scores and the interval that holds it at the asked level; all in the scores' unit."""

    difference: float
    low: float
    high: float

    @property
    def direction(self) -> int:
        """1 or -1 where the interval lies above or below zero, 0 where it holds zero."""
        return int(self.low > _ROUNDING) - int(self.high < -_ROUNDING)


def resampled_means(values: ArrayLike, *, seed: int | Sequence[int], resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """Means of bootstrap samples: each is `n` of the rows, drawn with replacement, the same for all columns.

    Args:
        values: (n, S), one row per sample and one column per quantity; n ≥ 1.
        resamples: number of bootstrap samples, R.

    Returns:
        (R, S), float64.

    Raises:
        ValueError: no rows, or a value that is not finite.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not len(table):
        raise ValueError(f"values must be (samples, quantities) with at least one sample, not of shape {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError("values must be finite: leave samples out that one of two runs does not have")
    n = len(table)
    random = np.random.default_rng(seed)
    means = np.empty((resamples, table.shape[1]))
    block = max(1, _BLOCK // n)
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn = random.integers(n, size=(size, n))  # [R, n], which sample
        drawn += np.arange(size)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n)  # how often each sample
        means[start : start + size] = counts @ table / n
    return means


def dataset_seed(seed: int, dataset: str) -> tuple[int, int]:
    """Seed of one dataset's draws, so that they do not depend on which other datasets are in the table."""
    return seed, zlib.crc32(dataset.encode())


def interval(difference: float, resampled: ArrayLike, *, level: float = LEVEL) -> Interval:
    """The percentile interval of a difference.

    Args:
        resampled: (R,), the difference of each bootstrap sample.
    """
    tail = (1 - level) / 2
    low, high = np.quantile(np.asarray(resampled, dtype=np.float64), [tail, 1 - tail])
    return Interval(difference, float(low), float(high))


@dataclass(frozen=True)
class Cell(Totals):
    """One run's result in one column, beside a baseline's.

    Attributes:
        difference: from the baseline over the `paired` samples, of datasets that both have; interval: where the true
            difference lies at 95 %, None with fewer than `FEWEST_PAIRS` pairs in a dataset.
    """

    difference: float | None = None
    interval: Interval | None = None

    @property
    def direction(self) -> int:
        """1 or -1 where the interval lies above or below zero, else 0."""
        return self.interval.direction if self.interval else 0


class Runs:
    """The samples of runs that may be compared, ready for cells against any of them.

    Args:
        frame: of `read_frame`, checked with `check_same_samples` or restricted by `common_samples`.
        protocol: "official" or "repaired".
    """

    def __init__(self, frame: pandas.DataFrame, protocol: str, *, seed: int = 0, resamples: int = RESAMPLES) -> None:
        self.names = list(dict.fromkeys(map(str, frame.run)))
        self._protocol, self._seed, self._resamples = protocol, seed, resamples
        self._parts: dict[str, dict[str, Samples]] = {name: {} for name in self.names}
        for (run, dataset), rows in frame.groupby(["run", "dataset"], sort=False):
            self._parts[str(run)][str(dataset)] = Samples(rows)
        self._scores = {
            str(dataset): rows.pivot(index="sample_id", columns="run", values=protocol)
            for dataset, rows in frame.groupby("dataset", sort=False)
        }
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
            baseline: name of the run that differences are from; None where there is none.
            whole: leave out cells of runs that lack a dataset of the column that another run has, so that the scores of
                a column are means over the same datasets.
        """
        runs = self.names if names is None else names
        cells = {(run, column.name): self._cell(run, column, baseline) for run in runs for column in columns}
        needed = {
            column.name: sum(i.dataset in self._scores for i in column.infos) if whole else 0 for column in columns
        }
        return {key: cell for key, cell in cells.items() if cell.datasets and len(cell.datasets) >= needed[key[1]]}

    def _cell(self, run: str, column: Column, baseline: str | None) -> Cell:
        if baseline is None or baseline == run:
            return Cell(**vars(totals(column, self._parts[run], protocol=self._protocol)))
        against = self._parts.get(baseline, {})
        sums = vars(totals(column, self._parts[run], against, protocol=self._protocol))
        pairs = {info.dataset: pair for info in column.infos if (pair := self._difference(run, baseline, info.dataset))}
        weights = mean_weights(column.tree, pairs)
        if not weights:
            return Cell(**sums)
        difference = sum(weight * pairs[dataset][0] for dataset, weight in weights.items())
        draws = sum((weight * pairs[dataset][1] for dataset, weight in weights.items()), np.zeros(self._resamples))
        enough = all(pairs[dataset][2] >= FEWEST_PAIRS for dataset in weights)
        return Cell(**sums, difference=difference, interval=interval(difference, draws) if enough else None)

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
