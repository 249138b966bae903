"""What a run's samples amount to: scores, costs and changed answers, averaged over the datasets of a column."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.benchmark import DatasetInfo
from benchmarks.evaluation.records import SampleRecord
from benchmarks.milebench import PAPER_COLUMNS, PROTOCOLS, Tree, datasets_of, mean_weights
from lookm.answers import first_difference
from lookm.errors import LookmError

if TYPE_CHECKING:
    import pandas

TASK_MEAN, COLUMN_MEAN, DATASET_MEAN = "task mean", "column mean", "dataset mean"
"""Three means that differ: over task codes, over the paper's columns (N-1 and N-2 are one, NH), over datasets."""
TIMES = {"decode_ms": "decode_ms_per_token", "compress_ms": "compress_ms", "prefill_ms": "prefill_ms"}


@dataclass(frozen=True)
class Column:
    """One column: a mean of means of datasets' means.

    Attributes:
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


def task_columns(names: Iterable[str], infos: Sequence[DatasetInfo], selected: Collection[str]) -> list[Column]:
    """Columns named by task codes or groups, such as T-1 and NH; those without a selected dataset are left out."""
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


def benchmark_columns(infos: Sequence[DatasetInfo], selected: Collection[str], *, paper: bool) -> list[Column]:
    """The paper's columns or one for each task code, their mean last where they are several."""
    names = PAPER_COLUMNS if paper else dict.fromkeys(info.task for info in infos)
    columns = task_columns(names, infos, selected)
    mean = [mean_column(columns, COLUMN_MEAN if paper else TASK_MEAN)] if len(columns) > 1 else []
    return [*columns, *mean]


@dataclass(frozen=True)
class Totals:
    """One run's result in one column; scores, budgets and shares in [0, 1], None where there is nothing to say.

    Attributes:
        score: the mean over the column's datasets that the run has of their mean scores over answered samples, under
            the protocol that was asked for, NaN where there is none; scores: the same by protocol, where there is one.
        n: answered samples; failed: samples without an answer; missing: samples asked for and not computed yet.
        datasets: names of the datasets that the score is of.
        chance: the same mean of the samples' chance levels.
        budget: mean share of the full cache's bytes that was kept; tokens: of the prompt's tokens.
        kept_bytes: mean bytes of a sample's compressed cache.
        lost_images: samples that lost images to the context limit.
        decode_ms: median decode step of the `timed` samples whose steps no other strategy shared.
        changed: share of the `paired` samples, answered by both, whose answer differs, token by token, from the
            baseline's.
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
    paired: int = 0
    changed: float | None = None
    first_change: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    missing: int = 0


class Samples:
    """The recorded samples of one run and dataset.

    Args:
        columns: names as in `sample_values` → a value for each sample; a data frame will do.
        asked: how many samples were asked for; None: as many as there are.
    """

    def __init__(self, columns: Mapping[str, Any] | pandas.DataFrame, asked: int | None = None) -> None:
        self._columns = columns
        self._answered = np.array([error is None for error in columns["error"]], dtype=bool)
        self.n = int(self._answered.sum())
        self.failed = len(self._answered) - self.n
        self.missing = 0 if asked is None else asked - len(self._answered)
        self.lost_images = int((np.asarray(columns["dropped_images"]) > 0).sum())

    @classmethod
    def of(cls, records: Iterable[SampleRecord], asked: int | None = None) -> Samples:
        """The samples of some records."""
        rows = [sample_values(record) for record in records]
        names = sample_values(SampleRecord(sample_id="", digest=""))
        return cls({name: [row[name] for row in rows] for name in names}, asked)

    @cached_property
    def answers(self) -> dict[str, Sequence[int]]:
        """Sample → the tokens of its answer."""
        tokens = zip(self._columns["sample_id"], self._columns["answer_tokens"], strict=True)
        return {str(sample): of for (sample, of), is_answer in zip(tokens, self._answered, strict=True) if is_answer}

    def values(self, name: str) -> NDArray[np.float64]:
        """A column's numbers over the answered samples, (n,), NaN where there is none."""
        return np.asarray(self._columns[name], dtype=np.float64)[self._answered]


def sample_values(record: SampleRecord) -> dict[str, Any]:
    """A record's fields, its scores by protocol, and those times that no other strategy shared."""
    times, scores = record.times or {}, record.scores or {}
    alone = times.get("decode_rows", times.get("batch")) == times.get("batch")
    return {
        **vars(record),
        **{protocol: scores.get(protocol) if record.answered else None for protocol in PROTOCOLS},
        **{name: times.get(field) if alone else None for name, field in TIMES.items()},
    }


def totals(
    column: Column,
    samples: Mapping[str, Samples],
    baseline: Mapping[str, Samples] | None = None,
    *,
    protocol: str = "official",
) -> Totals:
    """What a run amounts to in a column.

    Args:
        samples: of the run, by dataset; datasets of other columns are passed over.
        baseline: of the run that answers are compared with.
        protocol: whose score is `score`.
    """
    parts = {info.dataset: samples[info.dataset] for info in column.infos if info.dataset in samples}
    means = {name: {dataset: _mean(part.values(name)) for dataset, part in parts.items()} for name in PROTOCOLS}
    weights = mean_weights(column.tree, {dataset for dataset, mean in means[protocol].items() if mean == mean})

    def weighted(values: Mapping[str, float]) -> float:
        return sum(weight * values[dataset] for dataset, weight in weights.items()) if weights else math.nan

    def known(name: str) -> NDArray[np.float64]:
        joined = np.concatenate([np.empty(0), *(part.values(name) for part in parts.values())])
        return joined[~np.isnan(joined)]

    scores = {name: weighted(of_protocol) for name, of_protocol in means.items()}
    chance = weighted({dataset: float(parts[dataset].values("chance").mean()) for dataset in weights})
    kept, full, times = known("kept_bytes"), known("full_bytes"), known("decode_ms")
    pairs = [
        (answer, baseline[dataset].answers[sample])
        for dataset, part in parts.items()
        if baseline is not None and dataset in baseline
        for sample, answer in part.answers.items()
        if sample in baseline[dataset].answers
    ]
    places = [place for pair in pairs if (place := first_difference(*pair)) is not None]
    return Totals(
        score=scores[protocol],
        n=sum(part.n for part in parts.values()),
        failed=sum(part.failed for part in parts.values()),
        datasets=tuple(weights),
        scores={name: score for name, score in scores.items() if score == score},
        missing=sum(part.missing for part in parts.values()),
        chance=chance if chance == chance else None,
        budget=_mean_if_any(kept[full > 0] / full[full > 0]),
        tokens=_mean_if_any(known("realised_budget")),
        kept_bytes=_mean_if_any(kept),
        lost_images=sum(part.lost_images for part in parts.values()),
        decode_ms=float(np.median(times)) if len(times) else None,
        timed=len(times),
        paired=len(pairs),
        changed=len(places) / len(pairs) if pairs else None,
        first_change=median(places) if places else None,
    )


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of the numbers that are not NaN; NaN where there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _mean_if_any(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if len(values) else None
