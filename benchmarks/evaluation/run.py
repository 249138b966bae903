"""Computing runs: those that share model and samples together, with one prefill of each prompt.

Every selected sample that has no answer yet is computed, and the run's files are made from the answers. Under
`torchrun` rank 0 holds the runs, publishes what is missing, computes its share, gathers the others' and writes the
results.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.evaluation.active import ActiveRun, Material, Outcome, read_material
from benchmarks.evaluation.interruption import Interruption
from benchmarks.evaluation.ranks import Pending, Stage, current_ranks
from benchmarks.evaluation.settings import Settings, construct
from benchmarks.evaluation.store import hold_all
from lookm.errors import LookmError

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone

Loader = Callable[[Settings], "Backbone"]

# In what runs of one group may differ. `benchmark` holds a function; its configuration is compared instead.
_OWN = {"strategy", "strategy_config", "results_dir", "overwrite", "deviations", "resolved", "benchmark"}
_loaded: dict[str, Backbone] = {}


def run(settings: Settings, *, load: Loader | None = None, wait: bool = False) -> Outcome:
    """Computes what is missing of a run, writes its files and sums it up.

    The model is only loaded if a sample is missing. Every finished sample is on disk before the next batch begins, so
    that an interrupted run loses no more than a batch.

    Args:
        load: how to get the model; by default `load_backbone`.
        wait: wait for another process that computes the run; otherwise refuse.

    Raises:
        LookmError: no data, no weights, or a run folder that was made from something else.
        Interrupted: Ctrl-C or SIGTERM; the batch in work was finished, and the files are written.
    """
    (outcome,) = run_group([settings], load=load, wait=wait)
    return outcome


def run_group(settings: Sequence[Settings], *, load: Loader | None = None, wait: bool = False) -> list[Outcome]:
    """As `run` for several runs, in their order; the first error of one is raised after the others have ended."""
    outcomes = []
    for result in attempt_group(settings, load=load, wait=wait):
        if isinstance(result, BaseException):
            raise result
        outcomes.append(result)
    return outcomes


def attempt_group(
    settings: Sequence[Settings], *, load: Loader | None = None, wait: bool = False
) -> list[Outcome | BaseException]:
    """As `run` for several runs, those together that share model and samples.

    Every run's folder is what the run alone would have made of it, times aside.

    Returns:
        The outcomes, in the order of the settings; a run that fails has its error in the place of its outcome.

    Raises:
        Interrupted: as `run`.
    """
    results: dict[int, Outcome | BaseException] = {}
    for group in group_runs(settings):
        attempted = _attempt_group([settings[place] for place in group], load or load_backbone, wait)
        results.update(zip(group, attempted, strict=True))
    return [results[place] for place in range(len(settings))]


def group_runs(settings: Sequence[Settings]) -> list[list[int]]:
    """Divides runs into groups that are computed together: those with one model that select the same samples.

    A run that occurs again, with another strategy's budget that it does not depend on or with more samples, is in a
    later group than before.

    Returns:
        Places in `settings`; groups in the order of their first members.
    """
    groups: dict[tuple[str, int], list[int]] = {}
    for place, one in enumerate(settings):
        shared = shared_settings(one)
        times_before = 0
        while any(settings[other].folder == one.folder for other in groups.get((shared, times_before), ())):
            times_before += 1
        groups.setdefault((shared, times_before), []).append(place)
    return list(groups.values())


def shared_settings(settings: Settings) -> str:
    """What runs that are computed together have in common, as text."""
    return repr([getattr(settings, field.name) for field in fields(settings) if field.name not in _OWN])


def load_backbone(settings: Settings) -> Backbone:
    """Loads the model; asked for the same one again, hands out the one in memory.

    Raises:
        LookmError: weights missing or not fitting.
    """
    from transformers.utils import logging

    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # it would fill a log file with one endless line
    key = repr((settings.model_config, settings.device, settings.dtype))
    if key not in _loaded:
        _loaded.clear()  # before loading: two large models would not fit
        _loaded[key] = construct(settings.model_config, device=settings.device, dtype=settings.dtype)
    return _loaded[key]


def _attempt_group(settings: Sequence[Settings], load: Loader, wait: bool) -> list[Outcome | BaseException]:
    """Runs of one model that select the same samples, in different folders."""
    results: list[ActiveRun | Outcome | BaseException] = []
    try:
        ranks = current_ranks()
        with ranks.stage() as stage:
            settings = [ranks.own_device(one) for one in settings]
            if ranks.rank == 0:
                results += _lead(settings, load, wait, stage)
            else:
                results += _follow(settings, load, stage)
    except Exception as error:
        return [error] * len(settings)
    return [_ended(result) if isinstance(result, ActiveRun) else result for result in results]


def _ended(run: ActiveRun) -> Outcome | BaseException:
    try:
        return run.error or run.outcome()
    except Exception as error:
        return error


def _lead(settings: Sequence[Settings], load: Loader, wait: bool, stage: Stage) -> list[ActiveRun | BaseException]:
    """What a single process does, or rank 0 of several: computes what is missing and writes the results."""
    results: list[ActiveRun | BaseException] = []
    material = read_material(settings[0])
    for one in settings:
        try:
            run = ActiveRun(one, material)
            run.check()
            results.append(run)
        except Exception as error:
            results.append(error)
    runs = [run for run in results if isinstance(run, ActiveRun)]
    incomplete = [run for run in runs if run.missing]
    if incomplete:
        _complete(incomplete, load, wait, stage)
    for run in runs:
        if run not in incomplete:
            run.attempt(ActiveRun.finish_complete)
    return results


def _complete(runs: Sequence[ActiveRun], load: Loader, wait: bool, stage: Stage) -> None:
    """Computes what runs miss; what goes wrong is in their `error`."""
    from benchmarks.evaluation.compute import Group  # with it come torch and transformers

    try:
        backbone = load(runs[0].settings)
        with hold_all([run.folder for run in runs], wait=wait):
            for run in runs:
                run.attempt(ActiveRun.check)  # again: another process may have gone on with it meanwhile
                if run.missing:
                    run.attempt(partial(ActiveRun.begin, backbone=backbone))
            stage.publish({str(run.folder.path): run.pending for run in runs if run.error is None})
            with Interruption() as interruption:
                Group(runs, backbone, interruption, stage.ranks).compute()
                _gather(runs, stage, interruption)
                for run in runs:
                    run.attempt(ActiveRun.write)
                interruption.check()
            for run in runs:
                run.attempt(ActiveRun.finish)
    except BaseException as error:
        for run in runs:
            run.fail(error)
        if not isinstance(error, Exception):
            raise


def _gather(runs: Sequence[ActiveRun], stage: Stage, interruption: Interruption) -> None:
    """Waits for the other ranks, and takes over what they did.

    Raises:
        LookmError: one of them failed; what it and the others did before is taken over by the next call.
    """
    if stage.ranks.size == 1:
        return
    stage.wait_for_others(interruption)
    for run in runs:
        if interruption.requested:
            with suppress(LookmError):  # one that is still in its last batch: the next call takes it over
                run.folder.absorb()
        else:
            run.attempt(lambda run: run.folder.absorb())
    for dataset in runs[0].datasets:
        for run in runs:
            run.attempt(partial(ActiveRun.finish_dataset, dataset=dataset))


def _follow(settings: Sequence[Settings], load: Loader, stage: Stage) -> list[ActiveRun | BaseException]:
    """What the other ranks do: their share of what rank 0 published, then they wait until the results are written.

    Each run's answers go to a file of this process's own, which rank 0 absorbs.

    Returns:
        The runs, as they are on disk then.

    Raises:
        Interrupted: a signal asked to stop; the batch in work was finished.
    """
    pending = stage.pending()
    error: BaseException | None = None
    try:
        material = read_material(settings[0])
        error = _compute_share(settings, pending, material, load, stage)
    except BaseException as stopped:
        error = stopped
        raise
    finally:
        stage.report(error)
    stage.wait_for_end()
    return [ActiveRun(one, material) for one in settings]


def _compute_share(
    settings: Sequence[Settings], pending: Pending, material: Material, load: Loader, stage: Stage
) -> BaseException | None:
    """Computes this process's share of what is pending; returns the first error that ended a run."""
    from benchmarks.evaluation.compute import Group

    runs = [ActiveRun(one, material, shard=stage.ranks.rank) for one in settings if str(one.folder) in pending]
    for run in runs:
        run.pending = pending[str(run.settings.folder)]
    if not runs:
        return None
    backbone = load(settings[0])
    with hold_all([run.folder for run in runs]), Interruption() as interruption:
        Group(runs, backbone, interruption, stage.ranks).compute()
        interruption.check()
    return next((run.error for run in runs if run.error is not None), None)
