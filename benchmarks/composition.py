"""Configurations as `run.py` composes them: for programs that look instead of run, and once for each job of a sweep."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException, MissingConfigException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchmarks.evaluation import KEYS
from benchmarks.guard import is_name_too_long, shortened
from lookm.errors import LookmError
from lookm.locations import CONFIGS

if TYPE_CHECKING:
    from benchmarks.evaluation.settings import Settings


def for_benchmark(values: DictConfig, *, _root_: DictConfig) -> Any:
    """`${for_benchmark:{name: value, …}}` in configurations: the value for their benchmark, None for others.

    The benchmark's builder names it (`<name>_benchmark`).
    """
    builder = str(_root_.benchmark._target_).rpartition(".")[2]
    return values.get(builder.removesuffix("_benchmark"))


OmegaConf.register_new_resolver("for_benchmark", for_benchmark, replace=True)


def compose_jobs(overrides: Sequence[str]) -> list[Settings]:
    """The settings of all jobs of `run.py -m overrides…`, in their order; a run may occur several times.

    Raises:
        LookmError: an unknown key, group or value, as `run.py` says it.
    """
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            hydra = GlobalHydra.instance().hydra
            assert hydra is not None
            config = hydra.compose_config(
                "config", list(overrides), run_mode=RunMode.MULTIRUN, with_log_configuration=False
            )
            return sweep_settings(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise LookmError(explain(error)) from None


def compose_one(overrides: Sequence[str]) -> Settings:
    """The settings of `run.py overrides…`.

    Raises:
        LookmError: as `compose_jobs`, or overrides that name several jobs.
    """
    first, *others = compose_jobs(overrides)
    if others:
        raise LookmError(f"{len(others) + 1} runs are asked for; give one value for each key")
    return first


def sweep_settings(config: DictConfig) -> list[Settings]:
    """The settings of all jobs of a sweep, as Hydra's basic sweeper will hand them to the launcher.

    Args:
        config: the sweep's configuration, with its `hydra` node.
    """
    from benchmarks.evaluation.settings import check_values, read_settings

    loader = GlobalHydra.instance().config_loader()
    fixed = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    parsed = OverridesParser.create(config_loader=loader).parse_overrides([*fixed, *config.hydra.overrides.task])
    (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    jobs = [loader.load_sweep_config(config, overrides) for overrides in batch]
    for job in jobs:
        check_values(job)  # of all, before the first one's strategy needs torch
    return [read_settings(job, choices_of(job)) for job in jobs]


def job_settings(config: DictConfig, overrides: Sequence[str]) -> Settings:
    """The settings of one job of a sweep."""
    from benchmarks.evaluation.settings import read_settings

    job = GlobalHydra.instance().config_loader().load_sweep_config(config, list(overrides))
    return read_settings(job, choices_of(job))


def compose_each_job_once() -> None:
    """From now on this process's Hydra, which is about to sweep, composes equal overrides once.

    Its sweeper composes every job to validate it and its launcher to run it, and this program's checks before.
    """
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    hydra.config_loader = _ComposingOnce(hydra.config_loader.get_search_path())


class _ComposingOnce(ConfigLoaderImpl):
    """Hands out copies of a job's configuration; the copies that go to other processes compose anew."""

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        composed: dict[tuple[str, ...], DictConfig] = self.__dict__.setdefault("composed", {})
        key = tuple(sweep_overrides)
        if key not in composed:
            composed[key] = super().load_sweep_config(master_config, sweep_overrides)
        return deepcopy(composed[key])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "composed"}


def choices_of(config: DictConfig) -> dict[str, str]:
    """The chosen YAML of each group, from a composed configuration that has its `hydra` node."""
    choices = OmegaConf.to_container(config.hydra.runtime.choices)
    assert isinstance(choices, dict)
    return {str(group): str(name) for group, name in choices.items()}


def explain(error: BaseException) -> str:
    """One line for wrong input: the value and the way out."""
    if isinstance(error, OSError) and is_name_too_long(error):
        return shortened(error)
    text = " ".join(str(error).split())
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options is not None:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"unknown {group} {name!r}; choose one of {', '.join(error.options)}"
    ambiguous = re.match(r"Ambiguous value for argument '(\S+)'", text)
    if ambiguous:
        return f"{ambiguous[1]} names several values; add -m to run them all"
    sweep = re.match(r"Sweep parameters '(\S+)' requires --multirun", text)
    if sweep:
        return f"{sweep[1]} names several values; add -m to run them all"
    unknown = re.match(r"Could not override '([^']+)'", text)
    if unknown:
        cause = error.__cause__
        is_key = cause is None or "is not in struct" in str(cause)
        return _unknown_key(unknown[1]) if is_key else f"{unknown[1]}: {' '.join(str(cause).split())}"
    if not text and error.__cause__ is not None:
        text = " ".join(str(error.__cause__).split())
    return text or type(error).__name__


def _unknown_key(key: str) -> str:
    """What to say of a key that no configuration has."""
    top, _, field = key.partition(".")
    if field and top in KEYS:
        return f"unknown key {key!r}; this {top} has no such field (see --cfg job)"
    close = get_close_matches(top, KEYS, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown key {key!r}; {hint}the keys are {', '.join(KEYS)}"
