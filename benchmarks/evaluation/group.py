"""Asking the model what runs of one group miss: one sweep for each batch, an answer for every run."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import closing
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.evaluation.ahead import ahead
from benchmarks.evaluation.asking import answer
from benchmarks.evaluation.interruption import Interruption
from benchmarks.evaluation.opened import OpenRun
from benchmarks.evaluation.preparation import Dataset
from benchmarks.evaluation.progress import Progress
from benchmarks.evaluation.ranks import Ranks
from benchmarks.evaluation.reading import Encoded, Unit, read_units
from benchmarks.evaluation.records import SampleRecord

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone


class Group:
    """Runs that are asked together.

    Args:
        runs: of one model, with the same samples, in folders of their own.
        backbone: the model.
        interruption: ends the work after a batch.
        ranks: the processes that share the work; this one does its part.
    """

    def __init__(self, runs: Sequence[OpenRun], backbone: Backbone, interruption: Interruption, ranks: Ranks) -> None:
        self._runs = runs
        self._backbone = backbone
        self._interruption = interruption
        self._ranks = ranks
        first = runs[0]
        self._datasets: dict[str, Dataset] = {dataset.info.dataset: dataset for dataset in first.datasets}
        self._root: Path = first.settings.benchmark.root
        label = first.settings.run if len(runs) == 1 else f"{len(runs)} runs of {first.settings.model}"
        missing = sum(run.missing for run in self._going_on)
        if ranks.size > 1:
            label, missing = f"{label}, process 1 of {ranks.size}", -(-missing // ranks.size)
        self._progress = Progress(missing, label)

    @property
    def _going_on(self) -> list[OpenRun]:
        return [run for run in self._runs if run.error is None]

    def ask(self) -> None:
        """Asks batch by batch until nothing is missing, no run goes on, or an interruption is requested."""
        import torch

        torch.manual_seed(self._runs[0].settings.seed)
        missing: dict[str, Collection[str]] = {
            name: {sample for run in self._going_on for sample in run.pending[name]} for name in self._datasets
        }
        units = read_units(list(self._datasets.values()), missing, self._backbone, self._root, share=self._ranks.share)
        with self._progress, closing(ahead(units)) as ready:
            for name, of_dataset in groupby(ready, key=lambda unit: unit.dataset.info.dataset):
                for unit in of_dataset:
                    self._ask_unit(name, unit)
                    if self._interruption.requested or not self._going_on:
                        return
                for run in self._runs if self._ranks.size == 1 else ():
                    run.attempt(partial(OpenRun.finish_dataset, dataset=self._datasets[name]))
                self._progress.finish(name)

    def _ask_unit(self, name: str, unit: Unit) -> None:
        for run in self._runs:
            self._append(run, name, unit.failures)
        for part in unit.parts:
            samples = [sample.sample_id for sample in part.samples]
            self._ask_part(name, part, [run for run in self._going_on if run.misses(name, samples)])

    def _ask_part(self, name: str, part: Encoded, runs: Sequence[OpenRun]) -> None:
        """One sweep for these runs; if it fails, one for each, to find out which of them is to blame."""
        try:
            strategies = [run.settings.strategy for run in runs]
            found = answer(self._backbone, strategies, self._datasets[name], part, root=self._root)
        except Exception as error:
            if len(runs) == 1:
                runs[0].fail(error)
                return
            for run in runs:
                self._ask_part(name, part, [run])
            return
        for run, records in zip(runs, found, strict=True):
            self._append(run, name, records)

    def _append(self, run: OpenRun, name: str, records: Sequence[SampleRecord]) -> None:
        def append(run: OpenRun) -> None:
            self._progress.advance(run.append(name, records), name)

        run.attempt(append)
