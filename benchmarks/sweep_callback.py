"""The Hydra callback around a sweep: all jobs are checked before the first one starts, and compared after the last."""

from __future__ import annotations

import atexit
import math
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from benchmarks.command_line import complain, is_expected, jobs
from benchmarks.composition import compose_each_job_once, job_settings, sweep_settings
from benchmarks.evaluation.loggers import name_group
from benchmarks.evaluation.ranks import leads
from benchmarks.guard import Status, quiet_end
from lookm.errors import LookmError

if TYPE_CHECKING:
    from benchmarks.evaluation.settings import Settings

_BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"


def _ends_the_program(method: Callable[..., None]) -> Callable[..., None]:
    """Hydra turns what a callback raises into a warning; here wrong input ends the program with its line."""

    @wraps(method)
    def called(*arguments: Any, **named: Any) -> None:
        try:
            method(*arguments, **named)
        except BrokenPipeError:
            raise SystemExit(quiet_end()) from None
        except Exception as error:
            if is_expected(error):
                raise SystemExit(complain(error)) from None
            traceback.print_exc()
            raise SystemExit(Status.CRASHED) from None

    return called


class Sweep(Callback):
    """Checks, keeps going, compares. What is compared is read from the run folders, whatever launcher filled them.

    A sweeper that makes up its jobs as it goes (Optuna and the like) is left alone: its jobs check themselves.
    """

    def __init__(self) -> None:
        self._runs: list[Settings] = []
        self._statuses: list[Status] = []

    @_ends_the_program
    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Composes and checks every job, so that a bad value ends the sweep before anything is computed."""
        if config.hydra.sweep.dir == ".":
            # Hydra writes a multirun.yaml there; the run folders hold all that is worth keeping.
            config.hydra.sweep.dir = tempfile.mkdtemp(prefix="sweep-")
            atexit.register(shutil.rmtree, config.hydra.sweep.dir, ignore_errors=True)
        jobs.cache_clear()
        compose_each_job_once()
        if config.hydra.sweeper._target_ != _BASIC_SWEEPER:
            return
        settings = sweep_settings(config)
        if not leads():
            return
        from benchmarks.evaluation.sweep import check_runs, merge_jobs

        check_runs(settings)
        name_group(config.hydra.overrides.task)
        self._runs = merge_jobs(settings)
        print(f"{len(settings)} jobs, {len(self._runs)} runs", file=sys.stderr, flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Lets the sweep go on after a job that failed: says why, and gives the job the value NaN."""
        if config.hydra.mode != RunMode.MULTIRUN or job_return.status != JobStatus.FAILED:
            return
        error = job_return._return_value
        if is_expected(error):
            self._statuses.append(complain(error))
        else:
            traceback.print_exception(error)
            self._statuses.append(Status.CRASHED)
        job_return.status, job_return.return_value = JobStatus.COMPLETED, math.nan

    @_ends_the_program
    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Prints the comparison and ends the program with the worst status of the jobs."""
        if self._runs:
            self._compare()
        for status in (Status.CRASHED, Status.WRONG_INPUT, Status.SAMPLES_FAILED):
            if status in self._statuses:
                raise SystemExit(status)

    def _compare(self) -> None:
        from benchmarks.evaluation.results import summary_of
        from benchmarks.tables.run_tables import comparison_table
        from benchmarks.tables.table import show

        summaries = []
        for settings in self._runs:
            try:
                summary = summary_of(settings)
            except LookmError:
                print(f"{settings.run} has no results", file=sys.stderr)
                self._statuses.append(Status.CRASHED)
                continue
            if summary.mean.missing:
                self._statuses.append(Status.CRASHED)
            elif summary.mean.failed:
                self._statuses.append(Status.SAMPLES_FAILED)
            summaries.append(summary)
        if summaries:
            print()
            show(comparison_table(summaries), sys.stdout)


def announce_jobs(config: DictConfig, batch: Sequence[Sequence[str]]) -> None:
    """Tells this process which jobs it is going to run, if they may be computed together."""
    if _share_a_place(config, batch):
        jobs().announce([one for one in _settings(config, batch) if one is not None])


def job_groups(config: DictConfig, batch: Sequence[Sequence[str]]) -> list[list[int]]:
    """The jobs that are computed together, as places in `batch`; a job of wrong input is alone, and will say so."""
    from benchmarks.evaluation.run import shared_settings

    settings = _settings(config, batch) if _share_a_place(config, batch) else [None] * len(batch)
    groups: dict[str, list[int]] = {}
    for place, one in enumerate(settings):
        groups.setdefault(f"job {place}" if one is None else shared_settings(one), []).append(place)
    return list(groups.values())


def _share_a_place(config: DictConfig, batch: Sequence[Sequence[str]]) -> bool:
    """Whether no job gets an environment or working directory of its own."""
    of_hydra = {tuple(word for word in overrides if word.lstrip("+~").startswith("hydra.")) for overrides in batch}
    return not config.hydra.job.chdir and len(of_hydra) <= 1


def _settings(config: DictConfig, batch: Sequence[Sequence[str]]) -> list[Settings | None]:
    """Each job's settings; None for wrong input, of which the job itself will tell."""
    settings: list[Settings | None] = []
    for overrides in batch:
        try:
            settings.append(job_settings(config, overrides))
        except Exception as error:
            if not is_expected(error):
                raise
            settings.append(None)
    return settings
