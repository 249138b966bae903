"""Paired bootstrap: how much of a difference between two runs over the same samples could be chance.

Percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Samples are drawn
within each dataset, as many as it has, so that what is resampled is the score that tables show: a mean of datasets'
means.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
        seed: seed of the draws.
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
        difference: the observed one.
        resampled: (R,), the difference of each bootstrap sample.
        level: the interval's level, in (0, 1).
    """
    tail = (1 - level) / 2
    low, high = np.quantile(np.asarray(resampled, dtype=np.float64), [tail, 1 - tail])
    return Interval(difference, float(low), float(high))
