"""The runs that an experiment of `configs/experiment` asks for, and which of them a results folder has."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from benchmarks.benchmark import Benchmark, DatasetInfo
from benchmarks.composition import compose_jobs
from benchmarks.evaluation.comparable import choose_runs, facts_of, flattened
from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.store import RunFolder
from lookm.errors import check_one_of
from lookm.registry import names_of


@dataclass(frozen=True)
class Row:
    """One strategy, such as "h2o" or "h2o + kivi2", at one budget.

    α1, α2, budget and semantics are None where nothing is evicted.

    `identity` is the strategy's part of the configuration in `run.json`, as JSON with sorted keys.
    """

    strategy: str
    alpha1: float | None
    alpha2: float | None
    semantics: str | None
    identity: str
    budget: float | int | None = None

    @property
    def is_full(self) -> bool:
        """Whether this is the full cache, which the others are compared with."""
        return self.strategy == "full"

    @property
    def overrides(self) -> tuple[str, ...]:
        """What asks `run.py` for this row."""
        asked = {"alpha1": self.alpha1, "alpha2": self.alpha2, "budget": self.budget}
        strategy, _, storage = self.strategy.partition(" + ")
        named = (f"strategy={strategy}", *([f"storage={storage}"] if storage else []))
        return (*named, *(f"{key}={value:g}" for key, value in asked.items() if value is not None))


@dataclass(frozen=True)
class Experiment:
    """What an experiment runs on one model and benchmark.

    Attributes:
        model: name of the model's YAML; benchmark: the benchmark, not prepared.
        identity: what decides the answers, as in `run.json`: `model`, `benchmark` and the rest but the strategy.
        rows: its rows, in its order, the full cache once.
        overrides: what was given besides `+experiment=…`, as for run.py.
    """

    name: str
    model: str
    benchmark: Benchmark
    identity: Mapping[str, Any]
    rows: tuple[Row, ...]
    datasets: tuple[DatasetInfo, ...]
    overrides: tuple[str, ...]

    def command(self, rows: Sequence[Row] = ()) -> str:
        """The command that fills the experiment; for one row, the command of that run."""
        if len(rows) == 1:
            fixed = [
                item
                for item in self.overrides
                if item.partition("=")[0] not in ("alpha1", "alpha2", "budget", "strategy")
            ]
            if len(self.datasets) < len(self.benchmark.datasets):
                fixed.append(f"datasets=[{','.join(info.dataset for info in self.datasets)}]")
            return shlex.join(["lookm", "run", *rows[0].overrides, *fixed])
        return shlex.join(["lookm", "sweep", f"+experiment={self.name}", *self.overrides])


def read_experiment(name: str, overrides: Iterable[str] = ()) -> Experiment:
    """Composes an experiment as `run.py -m +experiment=<name> <overrides>` does, without data and weights.

    Raises:
        LookmError: no such experiment, or a wrong override, in one line.
    """
    check_one_of("experiment", name, names_of("experiment"))
    return _read(name, tuple(overrides))


@lru_cache(maxsize=16)
def _read(name: str, given: tuple[str, ...]) -> Experiment:
    jobs = compose_jobs([f"+experiment={name}", *given])
    rows = dict.fromkeys(map(_row, jobs))
    first = jobs[0]
    return Experiment(
        name=name,
        model=first.model,
        benchmark=first.benchmark,
        identity={key: value for key, value in first.identity.items() if key != "strategy"},
        rows=tuple(rows),
        datasets=first.datasets,
        overrides=tuple(item for item in given if not item.startswith("hydra.")),
    )


def matching_runs(
    experiment: Experiment, runs: Iterable[RunFolder], where: Mapping[str, str]
) -> dict[Row, list[RunFolder]]:
    """The runs that belong to each row; several of one row differ in something else than the strategy.

    A run belongs here if it has the experiment's model, its benchmark in the same variant, and every setting that was
    asked for by name; what else it has otherwise than the YAMLs is left to those who compare runs.

    Args:
        where: further conditions, such as `{"dtype": "float32", "model.max_context_len": "2000"}`, which take the place
            of what the experiment says of the same settings.

    Raises:
        LookmError: no run has such a setting, or this value of it.
    """
    asked = {item.partition("=")[0].lstrip("+") for item in experiment.overrides}
    required = {
        key: value
        for key, value in flattened(experiment.identity)
        if (key.startswith("benchmark.") or key in asked) and key not in where
    }
    matched: dict[Row, list[RunFolder]] = {row: [] for row in experiment.rows}
    by_identity = {row.identity: row for row in experiment.rows}
    candidates = [
        run for run in runs
        if run.configuration["model"]["name"] == experiment.model
        and run.configuration["benchmark"]["name"] == experiment.benchmark.name
        and json.dumps(run.configuration["strategy"], sort_keys=True) in by_identity
    ]  # fmt: skip
    for run in choose_runs(candidates, where):
        facts = facts_of(run.about)
        if all(facts.get(key) == value for key, value in required.items()):
            matched[by_identity[json.dumps(run.configuration["strategy"], sort_keys=True)]].append(run)
    return matched


def _row(settings: Settings) -> Row:
    identity = json.dumps(settings.identity["strategy"], sort_keys=True)
    strategy = settings.strategy
    if not settings.has_budget:
        return Row(strategy.label, None, None, strategy.semantics if settings.compresses else None, identity)
    return Row(strategy.label, strategy.alpha1, strategy.alpha2, strategy.semantics, identity, strategy.budget)
