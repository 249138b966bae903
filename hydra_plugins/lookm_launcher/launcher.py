"""`hydra/launcher=grouped`: Hydra's own launcher of one job after the other, whose jobs share what they can.

Every job has the overrides, callbacks, folder and return value that it would have under `hydra/launcher=basic`. Only
the work is done earlier: the first job of a group that shares a model and samples computes the whole group with one
prefill of each prompt, and the others find their results.
"""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn

_NODE = {"_target_": "hydra_plugins.lookm_launcher.launcher.GroupedLauncher"}
ConfigStore.instance().store(group="hydra/launcher", name="grouped", node=_NODE, provider="lookm")


class GroupedLauncher(BasicLauncher):
    """Announces its jobs before it runs them one by one, so that they can be computed together."""

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs the jobs; their returns are in the order of `job_overrides`."""
        from benchmarks.sweep_callback import announce_jobs

        assert self.config is not None
        announce_jobs(self.config, job_overrides)
        return super().launch(job_overrides, initial_job_idx)
