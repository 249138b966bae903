"""Launchers whose jobs are computed by groups of runs: those that share a prefill.

`hydra/launcher=grouped` is Hydra's own launcher of one job after the other; the first job of a group computes the whole
group with one prefill of each prompt, and the others find their results. The others start processes or cluster jobs:
`hydra/launcher=slurm` and `local` give a group to one submitit job, whose tasks (`tasks_per_node`) share its samples
as the processes of one `torchrun` do; `workers` gives each group to one of joblib's processes. Every run has the
overrides, callbacks, folder and return value that it would have under `hydra/launcher=basic`.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, setup_globals

Job = tuple[int, list[str]]
"""Its number and its overrides."""

_PATIENCE = 60.0  # seconds that the first task waits for the others to leave
_NODE = {"_target_": "hydra_plugins.lookm_launcher.cluster.GroupedLauncher"}
ConfigStore.instance().store(group="hydra/launcher", name="grouped", node=_NODE, provider="lookm")


class GroupedLauncher(BasicLauncher):
    """Announces its jobs before it runs them one by one, so that they can be computed together."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs; their returns are in the order of `job_overrides`."""
        from benchmarks.sweep_callback import announce_jobs

        assert self.config is not None
        announce_jobs(self.config, job_overrides)
        return super().launch(job_overrides, initial_job_idx)


def _launched(launch: Callable[[list[list[Job]]], list[list[JobReturn]]], launcher: Any, jobs: list[Job]) -> list[Any]:
    """Launches jobs by groups; their returns are in the order of the jobs."""
    from benchmarks.sweep_callback import job_groups

    groups = [[jobs[place] for place in group] for group in job_groups(launcher.config, [words for _, words in jobs])]
    returns = {
        number: done
        for group, of_group in zip(groups, launch(groups), strict=True)
        for (number, _), done in zip(group, of_group, strict=True)
    }
    return [returns[number] for number, _ in jobs]


def _run_group(
    launcher: Any, group: list[Job], state: dict[type, Singleton], run: Callable[[Job], JobReturn]
) -> list[JobReturn]:
    """In a process of its own: the jobs of a group, the first of which computes all."""
    from benchmarks.sweep_callback import announce_jobs

    setup_globals()
    Singleton.set_state(state)
    announce_jobs(launcher.config, [words for _, words in group])
    return [run(job) for job in group]


try:
    from hydra_plugins.hydra_joblib_launcher import _core as joblib_core
    from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
except ImportError:  # lookm-harness[joblib] is not installed
    pass
else:

    class GroupedWorkers(JoblibLauncher):
        """One of `n_jobs` processes for each group."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Runs the jobs; their returns are in the order of `job_overrides`."""
            from joblib import Parallel, delayed

            setup_globals()
            settings = {**self.joblib, "backend": "loky"}
            joblib_core.process_joblib_cfg(settings)
            state = Singleton.get_state()
            jobs = [(initial_job_idx + place, list(words)) for place, words in enumerate(job_overrides)]
            pool = Parallel(**settings)
            return _launched(lambda groups: pool(delayed(self.run_group)(group, state) for group in groups), self, jobs)

        def run_group(self, group: list[Job], state: dict[type, Singleton]) -> list[JobReturn]:
            """In one of the processes."""

            def run(job: Job) -> JobReturn:
                number, words = job
                done: JobReturn = joblib_core.execute_job(
                    number, words, self.hydra_context, self.config, self.task_function, state
                )
                return done

            return _run_group(self, group, state, run)


try:
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import (
        BaseSubmititLauncher,
        LocalLauncher,
        SlurmLauncher,
    )
except ImportError:  # lookm-harness[slurm] is not installed
    pass
else:

    class _Grouped(BaseSubmititLauncher):
        """A submitit job for each group. Its argument, where the plugin has one job's overrides, is a line for each."""

        def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
            """Runs the jobs; their returns are in the order of `job_overrides`."""
            jobs = [(initial_job_idx + place, list(words)) for place, words in enumerate(job_overrides)]
            submit = super().launch
            return _launched(
                lambda groups: list(submit([list(map(json.dumps, group)) for group in groups], initial_job_idx)),
                self,
                jobs,
            )

        def __call__(
            self, lines: list[str], job_dir_key: str, job_num: int, job_id: str, singleton_state: dict[type, Singleton]
        ) -> list[JobReturn]:
            """In one task of the cluster's job."""
            _name_rank()
            run = super().__call__
            done = _run_group(
                self,
                [tuple(json.loads(line)) for line in lines],
                singleton_state,
                lambda job: run(job[1], job_dir_key, job[0], f"job_id_for_{job[0]}", singleton_state),
            )
            _leave_together()
            return done

    class GroupedLocal(_Grouped, LocalLauncher):
        """Processes on this machine."""

    class GroupedSlurm(_Grouped, SlurmLauncher):
        """Jobs of a Slurm cluster."""


def _name_rank() -> None:
    """Tells this task of a submitit job which it is among those that share the job's samples, in torchrun's words."""
    import submitit

    task = submitit.JobEnvironment()
    if task.num_tasks > 1:
        os.environ |= {
            "TORCHELASTIC_RUN_ID": task.job_id,
            "RANK": str(task.global_rank),
            "WORLD_SIZE": str(task.num_tasks),
            "LOCAL_WORLD_SIZE": str(task.num_tasks // task.num_nodes),
            "MASTER_ADDR": "127.0.0.1",  # they are on one node
            "MASTER_PORT": str(20_000 + zlib.crc32(task.job_id.encode()) % 10_000),
        }


def _leave_together() -> None:
    """The first task keeps the store that all talk through, so that it must be the last one to end."""
    from benchmarks.evaluation.ranks import current_ranks

    ranks = current_ranks()
    if ranks.store is None:
        return
    left = ranks.store.add("left", 1)
    until = time.monotonic() + _PATIENCE
    while ranks.rank == 0 and left < ranks.size and time.monotonic() < until:
        time.sleep(0.05)
        left = ranks.store.add("left", 0)
