"""The Hydra callback around a sweep: all jobs are checked before the first one starts, and compared after the last."""

from __future__ import annotations

import atexit
import math
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from functools import wraps
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from benchmarks.command_line import Status, choices_of, complain, is_wrong_input
from lookm.errors import LookmError

_BASIC_SWEEPER = f"{BasicSweeper.__module__}.{BasicSweeper.__name__}"


def _ends_the_program(method: Callable[..., None]) -> Callable[..., None]:
    """Hydra turns what a callback raises into a warning; here wrong input ends the program with its line."""

    @wraps(method)
    def called(*arguments: Any, **named: Any) -> None:
        try:
            method(*arguments, **named)
        except Exception as error:
            if is_wrong_input(error):
                complain(error)
                raise SystemExit(Status.WRONG_INPUT) from None
            traceback.print_exc()
            raise SystemExit(Status.CRASHED) from None

    return called


class Sweep(Callback):
    """Checks, keeps going, compares. What is compared is read from the run folders, whatever launcher filled them.

    A sweeper that makes up its jobs as it goes (Optuna and the like) is left alone: its jobs check themselves.
    """

    def __init__(self) -> None:
        self._jobs: list[Any] = []
        self._statuses: list[Status] = []

    @_ends_the_program
    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Composes and checks every job, so that a bad value ends the sweep before anything is computed."""
        if config.hydra.sweep.dir == ".":
            # Hydra writes a multirun.yaml there; the run folders hold all that is worth keeping.
            config.hydra.sweep.dir = tempfile.mkdtemp(prefix="sweep-")
            atexit.register(shutil.rmtree, config.hydra.sweep.dir, ignore_errors=True)
        if config.hydra.sweeper._target_ != _BASIC_SWEEPER:
            return
        composed = compose_jobs(config)
        from benchmarks.runner import open_run
        from benchmarks.settings import read_settings

        jobs = {}
        for job in composed:
            settings = read_settings(job, choices_of(job))
            jobs[settings.folder] = settings
        for settings in jobs.values():
            open_run(settings)
        self._jobs = list(jobs.values())
        print(f"{len(composed)} jobs, {len(jobs)} runs", file=sys.stderr, flush=True)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Lets the sweep go on after a job that failed: says why, and gives the job the value NaN."""
        if config.hydra.mode != RunMode.MULTIRUN or job_return.status != JobStatus.FAILED:
            return
        error = job_return._return_value
        if isinstance(error, LookmError):
            complain(error)
            self._statuses.append(Status.WRONG_INPUT)
        else:
            traceback.print_exception(error)
            self._statuses.append(Status.CRASHED)
        job_return.status, job_return.return_value = JobStatus.COMPLETED, math.nan

    @_ends_the_program
    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Prints the comparison and ends the program with the worst status of the jobs."""
        if self._jobs:
            self._compare()
        for status in (Status.CRASHED, Status.WRONG_INPUT, Status.SAMPLES_FAILED):
            if status in self._statuses:
                raise SystemExit(status)

    def _compare(self) -> None:
        from benchmarks.results import summary_of
        from benchmarks.tables import comparison_table

        summaries = []
        for settings in self._jobs:
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
            print(f"\n{comparison_table(summaries)}", flush=True)


def compose_jobs(config: DictConfig) -> list[DictConfig]:
    """The configurations of all jobs of a sweep, as Hydra's basic sweeper will compose them.

    Args:
        config: the sweep's configuration, with its `hydra` node.
    """
    loader = GlobalHydra.instance().config_loader()
    fixed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides([*fixed, *config.hydra.overrides.task])
    (jobs,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return [loader.load_sweep_config(config, overrides) for overrides in jobs]
