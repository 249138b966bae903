"""One run: every selected sample that has no answer yet is asked, and the run's files are made from the answers."""

from __future__ import annotations

from benchmarks.evaluation.grouped import Loader, run_group
from benchmarks.evaluation.opened import Outcome
from benchmarks.evaluation.settings import Settings


def run(settings: Settings, *, load: Loader | None = None, wait: bool = False) -> Outcome:
    """Computes what is missing of a run, writes its files and sums it up.

    The model is only loaded if a sample has to be asked. Every finished sample is on disk before the next batch
    begins, so that an interrupted run loses no more than a batch.

    Args:
        settings: checked settings.
        load: how to get the model; by default the loader named by the settings, which keeps the last one in memory.
        wait: wait for another process that computes the run; otherwise refuse.

    Raises:
        LookmError: no data, no weights, or a run folder that was made from something else.
        Interrupted: Ctrl-C or SIGTERM; the batch in work was finished, and the files are written.
    """
    (outcome,) = run_group([settings], load=load, wait=wait)
    return outcome
