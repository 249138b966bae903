"""What `run.py` says and how it ends: one line for what a user got wrong, a table for what came out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from benchmarks.composition import explain
from benchmarks.evaluation.interruption import replace_handlers, restore_handlers, stop_now
from benchmarks.evaluation.ranks import leads
from benchmarks.guard import Status, is_name_too_long, quiet_end

if TYPE_CHECKING:
    from benchmarks.evaluation.sweep import Jobs

_LEADER_SPEAKS = 10.0  # seconds; it is over as soon as the leader has ended


def guard(command: Callable[[], Any]) -> int:
    """Calls the Hydra command; wrong input ends in one line on stderr, Ctrl-C and SIGTERM in another.

    Returns:
        The exit status. Unexpected errors are not caught.
    """
    replaced = replace_handlers(stop_now)
    try:
        command()
    except Exception as error:
        if not is_expected(error):
            raise
        status = complain(error)
        _let_the_leader_speak()
        return status
    except SystemExit as end:
        if end.code:
            _let_the_leader_speak()
        raise
    except KeyboardInterrupt as error:
        if leads():
            print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return getattr(error, "status", Status.INTERRUPTED)
    finally:
        restore_handlers(replaced)
    return Status.DONE


def _let_the_leader_speak() -> None:
    """Under `torchrun` the first process that fails takes the others along, and only one of them has a line to say."""
    if not leads():
        with suppress(KeyboardInterrupt):
            time.sleep(_LEADER_SPEAKS)


def run_job(config: DictConfig) -> float:
    """One Hydra job: checks its configuration, runs it and prints its table (in a sweep: a line).

    Returns:
        The mean score under the official protocol, in [0, 1]; NaN where nothing was answered.

    Raises:
        LookmError: in a sweep, for wrong input; on its own, the job ends the program with its line instead.
    """
    try:
        return _run_job(config)
    except BrokenPipeError:
        raise SystemExit(quiet_end()) from None


def _run_job(config: DictConfig) -> float:
    # What takes time to import comes when it is needed: --help and wrong values need none of it.
    from benchmarks.evaluation.settings import read_settings

    hydra = HydraConfig.get()
    sweeping = hydra.mode == RunMode.MULTIRUN
    try:
        settings = read_settings(config, hydra.runtime.choices)
        if sweeping:
            outcome = jobs().outcome(settings)
        else:
            from benchmarks.evaluation.run import run

            outcome = run(settings)
    except Exception as error:
        if sweeping or not is_expected(error):
            raise
        raise SystemExit(complain(error)) from None
    if leads():
        from benchmarks.tables.run_tables import job_line, run_table
        from benchmarks.tables.table import show

        if sweeping:
            print(job_line(outcome.summary, outcome.computed), flush=True)
        else:
            print()
            show(run_table(outcome.summary), sys.stdout)
    if outcome.failed and not sweeping:
        raise SystemExit(Status.SAMPLES_FAILED)
    return outcome.summary.mean.score


@lru_cache(maxsize=1)
def jobs() -> Jobs:
    """The jobs of the sweep that this process runs."""
    from benchmarks.evaluation.sweep import Jobs

    return Jobs()


def is_wrong_input(error: BaseException) -> bool:
    """Whether an error is the user's to mend, so that its line is enough."""
    if isinstance(error, HydraException | OmegaConfBaseException) or is_name_too_long(error):
        return True
    from lookm.errors import BudgetError, LookmError

    return isinstance(error, LookmError) and not isinstance(error, BudgetError)


def is_expected(error: BaseException) -> bool:
    """Whether an error's line says all: wrong input, or a cache that was found to hold what it must not."""
    from lookm.errors import BudgetError

    return is_wrong_input(error) or isinstance(error, BudgetError)


def complain(error: BaseException) -> Status:
    """Prints an expected error in one line on stderr; returns the exit status that belongs to it."""
    if leads():
        print(f"error: {explain(error)}", file=sys.stderr, flush=True)
    return Status.WRONG_INPUT if is_wrong_input(error) else Status.CRASHED
