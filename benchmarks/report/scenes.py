"""Runs that may be compared, gathered: one scene for each model, benchmark, data type and seed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks.benchmark import DatasetInfo
from benchmarks.milebench import DATASETS, PAPER_COLUMNS, PROTOCOLS
from benchmarks.tables.cells import Cell, Column, compute_cells, mean_column, task_columns
from benchmarks.tables.collection import Run, collect_runs
from benchmarks.tables.comparability import common_samples
from benchmarks.tables.experiment import facts_of
from lookm.errors import LookmError
from lookm.locations import CONFIGS
from lookm.registry import build_strategy
from lookm.strategy import Strategy

if TYPE_CHECKING:
    import pandas

_ORDER = ("full", "h2o", "snapkv", "roco", "a_merge", "w_merge", "p_merge", "tp", "tp_amerge", "tp_wmerge", "tp_pmerge")


@dataclass(frozen=True)
class Row:
    """One run of a scene.

    Attributes:
        run: the run; its name is `run.name`.
        strategy: its strategy's name.
        variant: the name and what is unusual about it, such as "tp_pmerge, release" or "tp, text_prior=strict".
        alpha1, alpha2: None where nothing is compressed.
    """

    run: Run
    strategy: str
    variant: str
    alpha1: float | None
    alpha2: float | None

    @property
    def is_full(self) -> bool:
        """Whether the whole cache is kept."""
        return self.alpha1 is None

    @property
    def budget(self) -> float:
        """Nominal budget, α1 + α2, in [0, 1]."""
        return 1.0 if self.alpha1 is None or self.alpha2 is None else round(self.alpha1 + self.alpha2, 9)

    @property
    def label(self) -> str:
        """Variant and budget, such as "h2o 0.1 + 0.1"."""
        return self.variant if self.is_full else f"{self.variant} {self.alpha1:g} + {self.alpha2:g}"

    @cached_property
    def built(self) -> Strategy | None:
        """The strategy itself; None where this program does not know it any more."""
        try:
            fields = {key: value for key, value in self.run.configuration["strategy"].items() if key != "name"}
            return build_strategy(self.strategy, fields)
        except LookmError:
            return None


@dataclass(frozen=True)
class Scene:
    """Runs that differ in nothing but the strategy and its budget.

    Attributes:
        label: model and benchmark in words; setting: data type and seed.
        model, benchmark: names of their YAMLs.
        rows: the runs, the full cache first, then by strategy and budget.
        table: their samples (`collect_runs`), only those that all runs have.
        left_out: samples that only some runs have, or that differ between them; they are not compared.
        columns: task columns, their mean last.
        cells: protocol → (run, column) → cell.
    """

    label: str
    setting: str
    model: str
    benchmark: str
    rows: tuple[Row, ...]
    table: pandas.DataFrame
    left_out: int
    columns: tuple[Column, ...]
    cells: Mapping[str, Mapping[tuple[str, str], Cell]]

    @property
    def is_paper_benchmark(self) -> bool:
        """Whether the paper has numbers of this benchmark."""
        return self.benchmark == "milebench"

    @property
    def full(self) -> Row | None:
        """The run with the full cache."""
        return next((row for row in self.rows if row.is_full), None)

    @property
    def budgets(self) -> list[tuple[float, float]]:
        """Pairs of α1 and α2, those with the most strategies first."""
        counts: dict[tuple[float, float], int] = {}
        for row in self.rows:
            if row.alpha1 is not None and row.alpha2 is not None:
                counts[row.alpha1, row.alpha2] = counts.get((row.alpha1, row.alpha2), 0) + 1
        return sorted(counts, key=lambda pair: (-counts[pair], abs(sum(pair) - 0.2), pair))

    def at(self, budget: tuple[float, float] | None) -> list[Row]:
        """The full cache and the runs at one pair of α1 and α2."""
        return [row for row in self.rows if row.is_full or (row.alpha1, row.alpha2) == budget]

    def cell(self, row: Row, column: str, protocol: str = "official") -> Cell | None:
        """One run's result in one column."""
        return self.cells[protocol].get((row.run.name, column))


def gather(runs: Iterable[Run]) -> list[Scene]:
    """Groups runs that may be compared and reads their samples.

    Raises:
        LookmError: no run has a sample.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        facts = {key: value for key, value in facts_of(run).items() if not key.startswith(("semantics", "data."))}
        groups.setdefault(json.dumps(facts, sort_keys=True, default=str), []).append(run)
    scenes = [scene for group in groups.values() if (scene := _scene(group)) is not None]
    if not scenes:
        raise LookmError("the runs have no finished sample yet; python run.py computes some")
    return sorted(scenes, key=lambda scene: (scene.benchmark != "milebench", -len(scene.rows), scene.label))


def _scene(runs: Sequence[Run]) -> Scene | None:
    whole = collect_runs(runs)
    runs = [run for run in runs if run.name in set(whole.run)]
    if not runs:
        return None
    digests = whole.groupby(["dataset", "sample_id"], sort=False).digest.transform("nunique")
    table = common_samples(whole[digests == 1])
    samples = whole[["dataset", "sample_id"]].drop_duplicates()
    left_out = len(samples) - len(table[["dataset", "sample_id"]].drop_duplicates())
    if table.empty:
        return None
    rows = _rows(runs)
    full = next((row.run.name for row in rows if row.is_full), None)
    columns = _columns(runs, table)
    cells = {name: compute_cells(table, columns, full=full, protocol=name) for name in PROTOCOLS}
    first = runs[0].configuration
    seed = f", seed {first['seed']}" if first.get("seed") else ""
    return Scene(
        label=str(table.label.iloc[0]),
        setting=f"{first['dtype']}{seed}",
        model=first["model"]["name"],
        benchmark=first["benchmark"]["name"],
        rows=rows,
        table=table,
        left_out=left_out,
        columns=tuple(columns),
        cells=cells,
    )


def _rows(runs: Sequence[Run]) -> tuple[Row, ...]:
    semantics = {run.configuration["strategy"].get("semantics") for run in runs} - {None}
    rows = []
    for run in runs:
        fields = run.configuration["strategy"]
        unusual = [fields["semantics"]] if len(semantics) > 1 and fields.get("semantics") else []
        usual = _written(fields["name"])
        unusual += [
            f"{key}={value}"
            for key, value in fields.items()
            if key not in ("name", "alpha1", "alpha2", "semantics") and usual.get(key) != value
        ]
        variant = ", ".join([fields["name"], *unusual])
        rows.append(Row(run, fields["name"], variant, fields.get("alpha1"), fields.get("alpha2")))

    def place(row: Row) -> tuple[Any, ...]:
        known = _ORDER.index(row.strategy) if row.strategy in _ORDER else len(_ORDER)
        return not row.is_full, known, row.variant, row.budget, row.alpha1 or 0.0

    return tuple(sorted(rows, key=place))


def _written(strategy: str) -> dict[str, Any]:
    """The fields of a strategy's YAML; none where there is none."""
    file = CONFIGS / "strategy" / f"{strategy}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _columns(runs: Sequence[Run], table: pandas.DataFrame) -> list[Column]:
    benchmark = next((run.benchmark for run in runs if run.benchmark is not None), None)
    infos: Sequence[DatasetInfo] = benchmark.datasets if benchmark is not None else DATASETS
    present = list(dict.fromkeys(str(name) for name in table.dataset))
    selected = [info for info in infos if info.dataset in present]
    is_paper = runs[0].configuration["benchmark"]["name"] == "milebench"
    names = PAPER_COLUMNS if is_paper else list(dict.fromkeys(info.task for info in selected))
    columns = task_columns(names, infos, present, selected)
    return [*columns, mean_column(columns)] if len(columns) > 1 else columns
