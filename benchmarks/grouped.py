"""Runs that share a model and samples are computed together: one prefill of each prompt, an answer for every run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import fields
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.ahead import ahead
from benchmarks.asking import answer
from benchmarks.interruption import Interruption
from benchmarks.loading import load_backbone
from benchmarks.opened import OpenRun, Outcome, open_run, read_material
from benchmarks.preparation import Dataset
from benchmarks.progress import Progress
from benchmarks.reading import Encoded, Unit, read_units
from benchmarks.records import SampleRecord
from benchmarks.settings import Settings
from benchmarks.store import hold_all

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone

Loader = Callable[[Settings], "Backbone"]

# In what runs of one group may differ. `benchmark` holds a function; its configuration is compared instead.
_OWN = {"strategy", "strategy_config", "results_dir", "overwrite", "deviations", "resolved", "benchmark"}


def run_group(settings: Sequence[Settings], *, load: Loader | None = None, wait: bool = False) -> list[Outcome]:
    """Computes what is missing of several runs, those together that share model and samples.

    Every run's folder is what the run alone would have made of it, times aside.

    Args:
        settings: of the runs, checked.
        load: how to get a model; by default the loader named by the settings, which keeps the last one in memory.
        wait: wait for another process that computes one of the runs; otherwise refuse.

    Returns:
        The outcomes, in the order of the settings.

    Raises:
        LookmError: no data, no weights, or a run folder that was made from something else. The first error of a run
            is raised after the others have ended.
        Interrupted: Ctrl-C or SIGTERM; the batch in work was finished, and the files are written.
    """
    outcomes = []
    for result in attempt_group(settings, load=load, wait=wait):
        if isinstance(result, BaseException):
            raise result
        outcomes.append(result)
    return outcomes


def attempt_group(
    settings: Sequence[Settings], *, load: Loader | None = None, wait: bool = False
) -> list[Outcome | BaseException]:
    """As `run_group`, but a run that fails has its error in the place of its outcome."""
    results: dict[int, Outcome | BaseException] = {}
    for part in parts(settings):
        attempted = _attempt_part([settings[place] for place in part], load or load_backbone, wait)
        results.update(zip(part, attempted, strict=True))
    return [results[place] for place in range(len(settings))]


def parts(settings: Sequence[Settings]) -> list[list[int]]:
    """Divides runs into groups that are computed together: those with one model that select the same samples.

    A run that occurs again, with another strategy's budget that it does not depend on or with more samples, is in a
    later group than before.

    Returns:
        Places in `settings`; groups in the order of their first members.
    """
    found: dict[tuple[str, int], list[int]] = {}
    for place, one in enumerate(settings):
        shared = repr([getattr(one, field.name) for field in fields(one) if field.name not in _OWN])
        times_before = 0
        while any(settings[other].folder == one.folder for other in found.get((shared, times_before), ())):
            times_before += 1
        found.setdefault((shared, times_before), []).append(place)
    return list(found.values())


def _attempt_part(settings: Sequence[Settings], load: Loader, wait: bool) -> list[Outcome | BaseException]:
    """Runs of one model that select the same samples, in different folders."""
    results: list[OpenRun | Outcome | BaseException] = []
    try:
        material = read_material(settings[0])
    except Exception as error:
        return [error] * len(settings)
    for one in settings:
        try:
            results.append(open_run(one, material))
        except Exception as error:
            results.append(error)
    runs = [run for run in results if isinstance(run, OpenRun)]
    incomplete = [run for run in runs if run.missing]
    if incomplete:
        _complete(incomplete, load, wait)
    for run in runs:
        if run not in incomplete:
            run.attempt(OpenRun.write)
    return [_ended(result) if isinstance(result, OpenRun) else result for result in results]


def _ended(run: OpenRun) -> Outcome | BaseException:
    try:
        return run.error or run.outcome()
    except Exception as error:
        return error


def _complete(runs: Sequence[OpenRun], load: Loader, wait: bool) -> None:
    """Asks what runs miss; what goes wrong is in their `error`."""
    try:
        backbone = load(runs[0].settings)
        with hold_all([run.folder for run in runs], wait=wait):
            for run in runs:
                run.attempt(OpenRun.check)  # again: another process may have gone on with it meanwhile
                run.attempt(partial(OpenRun.begin, backbone=backbone))
            with Interruption() as interruption:
                _Group(runs, backbone, interruption).ask()
                for run in runs:
                    run.attempt(OpenRun.write)
                interruption.check()
            for run in runs:
                run.attempt(OpenRun.finish)
    except BaseException as error:
        for run in runs:
            run.fail(error)
        if not isinstance(error, Exception):
            raise


class _Group:
    """Runs that are asked together."""

    def __init__(self, runs: Sequence[OpenRun], backbone: Backbone, interruption: Interruption) -> None:
        self._runs = runs
        self._backbone = backbone
        self._interruption = interruption
        first = runs[0]
        self._datasets: dict[str, Dataset] = {dataset.info.dataset: dataset for dataset in first.datasets}
        self._root: Path = first.settings.benchmark.root
        label = first.settings.run if len(runs) == 1 else f"{len(runs)} runs of {first.settings.model}"
        self._progress = Progress(sum(run.missing for run in self._going_on), label)

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
        units = read_units(list(self._datasets.values()), missing, self._backbone, self._root)
        with self._progress, closing(ahead(units)) as ready:
            for name, of_dataset in groupby(ready, key=lambda unit: unit.dataset.info.dataset):
                for unit in of_dataset:
                    self._ask_unit(name, unit)
                    if self._interruption.requested or not self._going_on:
                        return
                for run in self._runs:
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
