"""Computing what runs of one group miss: one sweep for each batch, an answer for every run, and how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from types import TracebackType
from typing import TYPE_CHECKING

from tqdm import tqdm

from benchmarks.evaluation.active import ActiveRun
from benchmarks.evaluation.batches import Batch, Encoded, prefetch, read_batches
from benchmarks.evaluation.generate import answer
from benchmarks.evaluation.interruption import Interruption
from benchmarks.evaluation.ranks import Ranks, leads
from benchmarks.evaluation.records import SampleRecord
from benchmarks.milebench.dataset import Dataset

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone

_SECONDS_BETWEEN_LINES = 60.0


class Group:
    """Runs that are computed together.

    Args:
        runs: of one model, with the same samples, in folders of their own.
    """

    def __init__(self, runs: Sequence[ActiveRun], backbone: Backbone, interruption: Interruption, ranks: Ranks) -> None:
        self._runs = runs
        self._backbone = backbone
        self._interruption = interruption
        self._ranks = ranks
        self._datasets: dict[str, Dataset] = {dataset.name: dataset for dataset in runs[0].datasets}
        self._root = runs[0].settings.benchmark.root
        label = runs[0].settings.run if len(runs) == 1 else f"{len(runs)} runs of {runs[0].settings.model}"
        missing = sum(run.missing for run in self._unfailed)
        if ranks.size > 1:
            label, missing = f"{label}, process 1 of {ranks.size}", -(-missing // ranks.size)
        self._progress = Progress(missing, label)

    @property
    def _unfailed(self) -> list[ActiveRun]:
        return [run for run in self._runs if run.error is None]

    def compute(self) -> None:
        """Computes batch by batch until nothing is missing, every run has failed, or an interruption is requested."""
        import torch

        torch.manual_seed(self._runs[0].settings.seed)
        missing: dict[str, Collection[str]] = {
            name: {sample for run in self._unfailed for sample in run.pending[name]} for name in self._datasets
        }
        rank, size = self._ranks.rank, self._ranks.size
        batches = read_batches(list(self._datasets.values()), missing, self._backbone, self._root, rank=rank, size=size)
        with self._progress, closing(prefetch(batches)) as prefetched:
            for name, of_dataset in groupby(prefetched, key=lambda batch: batch.dataset.name):
                for batch in of_dataset:
                    self._compute_batch(name, batch)
                    if self._interruption.requested or not self._unfailed:
                        return
                for run in self._runs if size == 1 else ():
                    run.attempt(partial(ActiveRun.finish_dataset, dataset=self._datasets[name]))
                self._progress.finish(name)

    def _compute_batch(self, name: str, batch: Batch) -> None:
        for run in self._runs:
            self._append(run, name, batch.failures)
        for part in batch.parts:
            samples = [example.sample_id for example in part.samples]
            self._compute_part(name, part, [run for run in self._unfailed if run.misses(name, samples)])

    def _compute_part(self, name: str, part: Encoded, runs: Sequence[ActiveRun]) -> None:
        """One sweep for these runs; if it fails, one for each, to find out which of them is to blame."""
        try:
            strategies = [run.settings.strategy for run in runs]
            by_strategy = answer(self._backbone, strategies, self._datasets[name], part, root=self._root)
        except Exception as error:
            if len(runs) == 1:
                runs[0].fail(error)
                return
            for run in runs:
                self._compute_part(name, part, [run])
            return
        for run, records in zip(runs, by_strategy, strict=True):
            self._append(run, name, records)

    def _append(self, run: ActiveRun, name: str, records: Sequence[SampleRecord]) -> None:
        run.attempt(lambda run: self._progress.advance(run.append(name, records), name))


class Progress:
    """Counts finished samples on stderr, with samples per second and the time left.

    On a terminal it is one bar. Elsewhere it writes a line as each dataset ends, and one a minute in between. Of
    several processes that share a run only the first one reports.

    Args:
        total: samples to compute, as far as it is known: a process's share can turn out a little larger.
    """

    def __init__(self, total: int, label: str) -> None:
        self._label, self._total, self._done = label, total, 0
        self._started = self._last_line = time.monotonic()
        on_terminal = sys.stderr.isatty() and leads()
        self._bar = tqdm(total=total, desc=label, unit=" samples", dynamic_ncols=True) if on_terminal else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, samples: int, dataset: str) -> None:
        """Counts finished samples of a dataset."""
        self._done += samples
        self._total = max(self._total, self._done)
        if self._bar is not None:
            self._bar.total = self._total
            self._bar.set_postfix_str(dataset, refresh=False)
            self._bar.update(samples)
        elif time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._line(dataset)

    def finish(self, dataset: str) -> None:
        """Says that a dataset is done."""
        if self._bar is None:
            self._line(f"{dataset} done")

    def _line(self, dataset: str) -> None:
        if not leads():
            return
        self._last_line = time.monotonic()
        rate = self._done / max(self._last_line - self._started, 1e-9)
        left = tqdm.format_interval((self._total - self._done) / rate) if rate else "?"
        line = f"{self._label}: {self._done}/{self._total} samples, {rate:.1f} samples/s, {left} left ({dataset})"
        print(line, file=sys.stderr, flush=True)
