"""The runs that an experiment of `configs/experiment` asks for, and which of them a results folder has."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from benchmarks import interpolation
from benchmarks.benchmark import Benchmark, DatasetInfo
from benchmarks.composition import choices_of, explain
from benchmarks.evaluation.settings import Settings, read_settings
from benchmarks.tables.collection import Run
from lookm.errors import LookmError
from lookm.locations import CONFIGS

interpolation.register()


@dataclass(frozen=True)
class Row:
    """One strategy at one budget; α1, α2 and semantics are None where nothing is compressed.

    `identity` is the strategy's part of the configuration in `run.json`, as JSON with sorted keys.
    """

    strategy: str
    alpha1: float | None
    alpha2: float | None
    semantics: str | None
    identity: str

    @property
    def is_full(self) -> bool:
        """Whether this is the full cache, which the others are compared with."""
        return self.strategy == "full"

    @property
    def overrides(self) -> tuple[str, ...]:
        """What asks `run.py` for this row."""
        budget = () if self.alpha1 is None else (f"alpha1={self.alpha1:g}", f"alpha2={self.alpha2:g}")
        return (f"strategy={self.strategy}", *budget)


@dataclass(frozen=True)
class Experiment:
    """What an experiment runs on one model and benchmark.

    Attributes:
        name: name of its YAML.
        model: name of the model's YAML; model_config: that YAML's fields, as far as they decide answers.
        benchmark: the benchmark, not prepared; benchmark_config: as `model_config`.
        rows: its rows, in its order, the full cache once.
        datasets: what it selects.
        overrides: what was given besides `+experiment=…`, as for run.py.
    """

    name: str
    model: str
    model_config: Mapping[str, Any]
    benchmark: Benchmark
    benchmark_config: Mapping[str, Any]
    rows: tuple[Row, ...]
    datasets: tuple[DatasetInfo, ...]
    overrides: tuple[str, ...]

    def command(self, rows: Sequence[Row] = ()) -> str:
        """The command that fills the experiment; for one row, the command of that run."""
        if len(rows) == 1:
            fixed = [item for item in self.overrides if item.partition("=")[0] not in ("alpha1", "alpha2", "strategy")]
            if len(self.datasets) < len(self.benchmark.datasets):
                fixed.append(f"datasets=[{','.join(info.dataset for info in self.datasets)}]")
            return shlex.join(["python", "run.py", *rows[0].overrides, *fixed])
        return shlex.join(["python", "run.py", "-m", f"+experiment={self.name}", *self.overrides])


def experiment_names() -> list[str]:
    """The experiments there are."""
    return sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))


def read_experiment(name: str, overrides: Iterable[str] = ()) -> Experiment:
    """Composes an experiment as `run.py -m +experiment=<name> <overrides>` does, without data and weights.

    Raises:
        LookmError: no such experiment, or a wrong override, in one line.
    """
    if name not in experiment_names():
        raise LookmError(f"unknown experiment {name!r}; choose one of {', '.join(experiment_names())}")
    return _read(name, tuple(overrides))


@lru_cache(maxsize=16)
def _read(name: str, given: tuple[str, ...]) -> Experiment:
    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            jobs = [read_settings(job, choices_of(job)) for job in _jobs([f"+experiment={name}", *given])]
    except (HydraException, OmegaConfBaseException) as error:
        raise LookmError(explain(error)) from None
    rows = dict.fromkeys(map(_row, jobs))
    first = jobs[0]
    return Experiment(
        name=name,
        model=first.model,
        model_config=first.identity["model"],
        benchmark=first.benchmark,
        benchmark_config=first.identity["benchmark"],
        rows=tuple(rows),
        datasets=first.datasets,
        overrides=tuple(item for item in given if not item.startswith("hydra.")),
    )


def matching_runs(experiment: Experiment, runs: Iterable[Run], where: Mapping[str, str]) -> dict[Row, list[Run]]:
    """The runs that belong to each row; several of one row differ in something else than the strategy.

    Args:
        experiment: whose model, benchmark and rows are looked for.
        runs: where to look.
        where: further conditions, such as `{"dtype": "float32", "model.max_context_len": "2000"}`.
    """
    found: dict[Row, list[Run]] = {row: [] for row in experiment.rows}
    by_identity = {row.identity: row for row in experiment.rows}
    for run in runs:
        configuration = run.configuration
        if (configuration["model"]["name"], configuration["benchmark"]["name"]) != (
            experiment.model,
            experiment.benchmark.name,
        ):
            continue
        facts = facts_of(run)
        if any(str(facts.get(key)) != value for key, value in where.items()):
            continue
        row = by_identity.get(json.dumps(configuration["strategy"], sort_keys=True))
        if row is not None:
            found[row].append(run)
    return found


def facts_of(run: Run) -> dict[str, Any]:
    """Everything but the strategy that decides a run's answers, as one flat mapping with dotted names."""
    about, configuration = run.about, run.configuration
    nested = {
        **{group: configuration[group] for group in ("model", "benchmark")},
        "semantics": configuration["strategy"].get("semantics"),
        **{name: configuration.get(name) for name in ("dtype", "seed")},
        "weights": about.get("weights"),
        "generation": about.get("generation", {}),
        "data": about.get("data", {}),
    }
    return dict(_flat(nested))


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", item


def _jobs(overrides: Sequence[str]) -> Iterable[DictConfig]:
    """The configurations that Hydra's basic sweeper makes of a command line, the experiment's own axes included."""
    params = compose("config", list(overrides), return_hydra_config=True).hydra.sweeper.params or {}
    axes = [f"{key}={value}" for key, value in params.items()]
    parsed = OverridesParser.create().parse_overrides([*axes, *overrides])
    (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    for job in batch:
        yield compose("config", job, return_hydra_config=True)


def _row(settings: Settings) -> Row:
    identity = json.dumps(settings.identity["strategy"], sort_keys=True)
    strategy = settings.strategy
    if not settings.compresses:
        return Row(strategy.name, None, None, None, identity)
    return Row(strategy.name, strategy.alpha1, strategy.alpha2, strategy.semantics, identity)
