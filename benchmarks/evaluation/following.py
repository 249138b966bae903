"""What processes do that share the runs of another one, and how that one gathers what they did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.evaluation.interruption import Interruption
from benchmarks.evaluation.opened import Material, OpenRun, read_material
from benchmarks.evaluation.ranks import Pending, Stage
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.store import hold_all
from lookm.errors import LookmError

if TYPE_CHECKING:
    from lookm.models.backbone import Backbone


def follow(
    settings: Sequence[Settings], load: Callable[[Settings], Backbone], stage: Stage
) -> list[OpenRun | BaseException]:
    """Does this process's share of what the leader says is missing, and waits until the results are written.

    Each run's answers go to a file of this process's own, which the leader absorbs.

    Returns:
        The runs, as they are on disk then.

    Raises:
        Interrupted: a signal asked to stop; the batch in work was finished.
    """
    pending = stage.pending()
    error: BaseException | None = None
    try:
        material = read_material(settings[0])
        error = _share(settings, pending, material, load, stage)
    except BaseException as stopped:
        error = stopped
        raise
    finally:
        stage.report(error)
    stage.wait_for_end()
    return [OpenRun(one, material) for one in settings]


def _share(
    settings: Sequence[Settings],
    pending: Pending,
    material: Material,
    load: Callable[[Settings], Backbone],
    stage: Stage,
) -> BaseException | None:
    """Asks this process's share of what is pending; returns the first error that ended a run."""
    runs = [OpenRun(one, material, shard=stage.ranks.rank) for one in settings if str(one.folder) in pending]
    for run in runs:
        run.pending = pending[str(run.settings.folder)]
    if not runs:
        return None
    from benchmarks.evaluation.group import Group  # with it come torch and transformers

    backbone = load(settings[0])
    with hold_all([run.folder for run in runs]), Interruption() as interruption:
        Group(runs, backbone, interruption, stage.ranks).ask()
        interruption.check()
    return next((run.error for run in runs if run.error is not None), None)


def gather(runs: Sequence[OpenRun], stage: Stage, interruption: Interruption) -> None:
    """Waits for the processes that share these runs, and takes over what they did.

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
            run.attempt(OpenRun.absorb)
    for dataset in runs[0].datasets:
        for run in runs:
            run.attempt(partial(OpenRun.finish_dataset, dataset=dataset))
