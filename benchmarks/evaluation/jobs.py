"""The jobs that one process of a sweep is going to run: the first job of a group computes all of the group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.evaluation.grouped import attempt_group, parts
from benchmarks.evaluation.opened import Outcome
from benchmarks.evaluation.settings import Settings


class Jobs:
    """Computes jobs together that share a model and samples, and hands out their outcomes one by one.

    Jobs that nobody announced, as under launchers that start a process for each job, are computed alone.
    """

    def __init__(self) -> None:
        self._coming: list[dict[Path, Settings]] = []
        self._results: list[dict[Path, Outcome | BaseException]] = []
        self._started_afresh: set[Path] = set()

    def announce(self, settings: Sequence[Settings]) -> None:
        """Tells which jobs will come, in their order."""
        for part in parts(settings):
            self._coming.append({settings[place].folder: settings[place] for place in part})

    def outcome(self, settings: Settings) -> Outcome:
        """The outcome of the next job of this folder; computes the job's group unless that is done.

        Raises:
            LookmError: as `run_group`, and whatever else made this job fail.
            Interrupted: as `run_group`.
        """
        if not any(settings.folder in results for results in self._results):
            self._compute(settings)
        for results in self._results:
            if settings.folder in results:
                result = results.pop(settings.folder)
                if isinstance(result, BaseException):
                    raise result
                return result
        raise AssertionError("a computed job has a result")

    def _compute(self, settings: Settings) -> None:
        group = next((group for group in self._coming if settings.folder in group), None)
        if group is not None:
            self._coming.remove(group)
        chosen = [self._once_afresh(one) for one in ([settings] if group is None else group.values())]
        attempted = attempt_group(chosen, wait=True)
        self._results.append({one.folder: result for one, result in zip(chosen, attempted, strict=True)})

    def _once_afresh(self, settings: Settings) -> Settings:
        """Several jobs of a sweep can be one run, such as `full` at all budgets: only the first starts it afresh."""
        if settings.overwrite:
            settings = replace(settings, overwrite=settings.folder not in self._started_afresh)
            self._started_afresh.add(settings.folder)
        return settings
