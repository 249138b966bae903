"""A run while it is being computed: what it misses, what it is made from, and how it ends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.evaluation.examples import read_datasets
from benchmarks.evaluation.loggers import Logger, log_finished_run, open_logger
from benchmarks.evaluation.provenance import git_state, hardware, versions, weights_fingerprint
from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.results import facts_of_run, read_summary, write_results
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.store import AFRESH, RunFolder
from benchmarks.evaluation.summary import Summary
from benchmarks.milebench.dataset import Dataset
from lookm.errors import LookmError

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone


@dataclass(frozen=True)
class Outcome:
    """What a call of `run` did.

    Attributes:
        summary: scores and costs of the selected samples, per task.
        computed: samples computed by this call; the others were there already.
        failed: selected samples without an answer.
    """

    summary: Summary
    computed: int
    failed: int


@dataclass(frozen=True)
class Material:
    """What runs of one group are made from: the selected samples, and the fingerprint of the weights."""

    datasets: list[Dataset]
    weights: str | None


def read_material(settings: Settings) -> Material:
    """Gets a run's data ready and reads what it selects of them.

    Raises:
        LookmError: no data, or broken data.
    """
    settings.benchmark.prepare()
    return Material(read_datasets(settings), weights_fingerprint(settings.model_config))


class ActiveRun:
    """One run of a group. An error of its own ends it, and leaves the others alone.

    Args:
        material: what it is made from; runs that select the same samples for the same model share it.
        shard: the rank of a process that computes a part of the run for the process that holds it.

    Attributes:
        pending: ids of the selected samples that are to be computed, by dataset; known after `check`.
    """

    def __init__(self, settings: Settings, material: Material, *, shard: int | None = None) -> None:
        self.settings = settings
        self.datasets = material.datasets
        self.folder = RunFolder(settings.folder, shard=shard)
        self.pending: dict[str, list[str]] = {}
        self.error: BaseException | None = None
        self._origin = {
            "configuration": settings.identity,
            "weights": material.weights,
            "data": {dataset.name: dataset.data for dataset in material.datasets},
        }
        self._configured_logger = open_logger(settings.resolved.get("logger"))
        self._logger = Logger()  # until something is computed, there is nothing to report
        self._session = ExitStack()
        self._computed = 0
        self._written: set[str] = set()

    @property
    def missing(self) -> int:
        """Samples that are to be computed."""
        return sum(map(len, self.pending.values()))

    def attempt(self, step: Callable[[ActiveRun], None]) -> None:
        """Does a step, unless an error ended the run before; an error of the step ends it."""
        if self.error is None:
            try:
                step(self)
            except Exception as error:
                self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Ends the run with an error, unless it has ended with another one before."""
        if self.error is None:
            self.error = error
            self._logger.failed(error)
            self._session.__exit__(type(error), error, error.__traceback__)

    def check(self) -> None:
        """Works out what is missing.

        Raises:
            LookmError: the folder was made from something else.
        """
        if not self.settings.overwrite:
            self.folder.check(**self._origin)
        self.pending = {dataset.name: self._pending(dataset) for dataset in self.datasets}

    def begin(self, backbone: Backbone) -> None:
        """Writes what the run is made from, and that it is computed from now on.

        Raises:
            LookmError: the folder cannot be written to.
        """
        from lookm.memory import head_size

        settings, strategy = self.settings, self.settings.strategy
        self._computed = self.missing
        if settings.overwrite:
            self.folder.clear()  # not before the model is there
        self.folder.describe(
            name=settings.run,
            labels={"model": backbone.label, "benchmark": settings.benchmark.label, "strategy": strategy.label},
            nominal_budget=strategy.nominal_budget,
            **facts_of_run(settings),
            cache={"head_size": head_size(backbone.model.config), "itemsize": backbone.model.dtype.itemsize},
            **({"left_out": {d.name: d.left_out for d in self.datasets}} if settings.asked_later else {}),
            generation={"do_sample": False, "min_new_tokens": 1, "max_new_tokens": backbone.max_new_tokens},
            **{name: value for name, value in self._origin.items() if value is not None},
        )
        machine = hardware(settings.device)
        self._session.enter_context(
            self.folder.session(resolved=settings.resolved, versions=versions(), git=git_state(), hardware=machine)
        )
        self._logger = self._configured_logger
        self._logger.started(self.folder)

    def misses(self, dataset: str, names: Iterable[str]) -> bool:
        """Whether one of these samples is to be computed."""
        return not set(names).isdisjoint(self.pending[dataset])

    def append(self, dataset: str, records: Sequence[SampleRecord]) -> int:
        """Writes those of the records that the run misses; returns how many."""
        names = set(self.pending[dataset])
        missed = [record for record in records if str(record.sample_id) in names]
        self.folder.append(dataset, missed)
        return len(missed)

    def finish_dataset(self, dataset: Dataset) -> None:
        """Writes the result files of a dataset of which something was computed."""
        if self.pending[dataset.name]:
            write_results(self.settings, self.folder, [dataset])
            self._written.add(dataset.name)
            self._logger.dataset_done(self.folder, dataset.name)

    def write(self) -> None:
        """Writes the result files of the selected datasets that have not been finished meanwhile."""
        others = [dataset for dataset in self.datasets if dataset.name not in self._written]
        if others:
            write_results(self.settings, self.folder, others)

    def finish(self) -> None:
        """Ends the session: everything is computed."""
        self._session.close()
        self._logger.finished(self.folder)

    def finish_complete(self) -> None:
        """Writes and logs a run of which nothing was missing: a sweep's group is to hold all its rows."""
        self.write()
        log_finished_run(self.folder, self._configured_logger)

    def outcome(self) -> Outcome:
        """What was done, from what is in the folder."""
        summary = read_summary(self.settings, self.folder, self.datasets)
        return Outcome(summary, self._computed, summary.mean.failed)

    def _pending(self, dataset: Dataset) -> list[str]:
        """Ids of the selected samples that are to be computed: those without an answer, or all to start afresh.

        Raises:
            LookmError: a sample was answered when it, or one of its images, was another.
        """
        records: Mapping[str, SampleRecord] = {}
        if not self.settings.overwrite:
            records = self.folder.records(dataset.name)
        pending = []
        for name, digest in dataset.digests.items():
            record = records.get(name)
            if record is None or not record.answered:
                pending.append(name)
            elif record.digest != digest:
                raise LookmError(
                    f"{self.folder.path} was computed with other data (sample {name} of {dataset.name} or its "
                    f"images have changed); {AFRESH}"
                )
        return pending
