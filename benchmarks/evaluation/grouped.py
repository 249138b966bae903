"""Runs that share a model and samples are computed together: one prefill of each prompt, an answer for every run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.evaluation.following import follow, gather
from benchmarks.evaluation.interruption import Interruption
from benchmarks.evaluation.loading import load_backbone
from benchmarks.evaluation.opened import OpenRun, Outcome, open_run, read_material
from benchmarks.evaluation.ranks import Stage, ranks
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.store import hold_all

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
        with ranks().stage() as stage:
            settings = [ranks().own_device(one) for one in settings]
            if stage.ranks.rank == 0:
                results += _lead(settings, load, wait, stage)
            else:
                results += follow(settings, load, stage)
    except Exception as error:
        return [error] * len(settings)
    return [_ended(result) if isinstance(result, OpenRun) else result for result in results]


def _ended(run: OpenRun) -> Outcome | BaseException:
    try:
        return run.error or run.outcome()
    except Exception as error:
        return error


def _lead(settings: Sequence[Settings], load: Loader, wait: bool, stage: Stage) -> list[OpenRun | BaseException]:
    """Computes what is missing and writes the results, alone or with other processes that follow."""
    results: list[OpenRun | BaseException] = []
    material = read_material(settings[0])
    for one in settings:
        try:
            results.append(open_run(one, material))
        except Exception as error:
            results.append(error)
    runs = [run for run in results if isinstance(run, OpenRun)]
    incomplete = [run for run in runs if run.missing]
    if incomplete:
        _complete(incomplete, load, wait, stage)
    for run in runs:
        if run not in incomplete:
            run.attempt(OpenRun.write)
    return results


def _complete(runs: Sequence[OpenRun], load: Loader, wait: bool, stage: Stage) -> None:
    """Asks what runs miss; what goes wrong is in their `error`."""
    from benchmarks.evaluation.group import Group  # with it come torch and transformers

    try:
        backbone = load(runs[0].settings)
        with hold_all([run.folder for run in runs], wait=wait):
            for run in runs:
                run.attempt(OpenRun.check)  # again: another process may have gone on with it meanwhile
                if run.missing:
                    run.attempt(partial(OpenRun.begin, backbone=backbone))
            stage.publish({str(run.folder.path): run.pending for run in runs if run.error is None})
            with Interruption() as interruption:
                Group(runs, backbone, interruption, stage.ranks).ask()
                gather(runs, stage, interruption)
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
