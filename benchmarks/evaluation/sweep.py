"""The jobs that one process of a sweep is going to run: the first job of a group computes all of the group."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.evaluation.active import ActiveRun, Outcome, read_material
from benchmarks.evaluation.run import attempt_group, group_runs
from benchmarks.evaluation.settings import Settings


def check_runs(settings: Sequence[Settings]) -> None:
    """Checks that every run has its data, and a folder that was made from the same things or none.

    Raises:
        LookmError: the first thing that is wrong.
    """
    for group in group_runs(settings):
        material = read_material(settings[group[0]])
        for place in group:
            ActiveRun(settings[place], material).check()


def merge_jobs(settings: Sequence[Settings]) -> list[Settings]:
    """The runs of a sweep's jobs: jobs of one folder, such as `task=T-1` and `task=T-2`, select their samples together.

    Returns:
        One entry for each folder, in the order of the first jobs; its datasets are those of all its jobs, in the
        benchmark's order, and its limit is their largest (smaller selections are part of larger ones).
    """
    by_folder: dict[Path, list[Settings]] = {}
    for one in settings:
        by_folder.setdefault(one.folder, []).append(one)
    return [
        replace(
            jobs[0],
            datasets=tuple(i for i in jobs[0].benchmark.datasets if any(i in job.datasets for job in jobs)),
            limit=max((job.limit for job in jobs), key=lambda limit: math.inf if limit is None else limit),
        )
        for jobs in by_folder.values()
    ]


class Jobs:
    """Computes jobs together that share a model and samples, and hands out their outcomes one by one.

    Jobs that nobody announced, as under launchers that start a process for each job, are computed alone.
    """

    def __init__(self) -> None:
        self._announced: list[list[Settings]] = []
        self._results: dict[Path, list[Outcome | BaseException]] = {}
        self._started_afresh: set[Path] = set()

    def announce(self, settings: Sequence[Settings]) -> None:
        """Tells which jobs will come, in their order."""
        self._announced += [[settings[place] for place in group] for group in group_runs(settings)]

    def outcome(self, settings: Settings) -> Outcome:
        """The outcome of the next job of this folder; computes the job's group unless that is done.

        Raises:
            LookmError: as `attempt_group`, and whatever else made this job fail.
            Interrupted: as `attempt_group`.
        """
        if not self._results.get(settings.folder):
            self._compute(settings)
        result = self._results[settings.folder].pop(0)
        if isinstance(result, BaseException):
            raise result
        return result

    def _compute(self, settings: Settings) -> None:
        """Computes the next group that the job is in, or the job alone."""
        folder = settings.folder
        group = next((group for group in self._announced if folder in [one.folder for one in group]), [settings])
        if group in self._announced:
            self._announced.remove(group)
        jobs = [self._once_afresh(one) for one in group]
        for one, result in zip(jobs, attempt_group(jobs, wait=True), strict=True):
            self._results.setdefault(one.folder, []).append(result)

    def _once_afresh(self, settings: Settings) -> Settings:
        """Several jobs of a sweep can be one run, such as `full` at all budgets: only the first starts it afresh."""
        if settings.overwrite:
            settings = replace(settings, overwrite=settings.folder not in self._started_afresh)
            self._started_afresh.add(settings.folder)
        return settings
