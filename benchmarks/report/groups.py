"""Runs that may be compared, gathered: one group for each model, benchmark, data type and seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.cells import Column, benchmark_columns
from benchmarks.evaluation.comparable import common_samples, comparable_groups
from benchmarks.evaluation.store import RunFolder
from benchmarks.milebench import PROTOCOLS
from benchmarks.tables.cells import Cell, Runs
from benchmarks.tables.frame import budget_text, known_datasets, read_frame, run_settings
from benchmarks.tables.paper import is_paper_benchmark
from benchmarks.tables.styles import place_of
from lookm.errors import LookmError
from lookm.registry import build_strategy
from lookm.strategy import Strategy

if TYPE_CHECKING:
    import pandas

Budget = tuple[float, float, float | None] | None
"""α1, α2, and the budget that was given as such; None where there is none."""


@dataclass(frozen=True)
class Row:
    """One run of a group.

    Attributes:
        run: its folder; its name is `run.name`.
        strategy: its strategy's name.
        variant: the name and what is unusual about it, such as "tp_pmerge, release" or "tp, text_prior=strict".
        asked: the budget; None where nothing is compressed, or the strategy has none.
    """

    run: RunFolder
    strategy: str
    variant: str
    asked: Budget

    @property
    def is_full(self) -> bool:
        """Whether the whole cache is kept."""
        return self.variant == "full"

    @property
    def budget(self) -> float | None:
        """Nominal budget, α1 + α2, in [0, 1]; None for a number of tokens, or where the strategy has none."""
        if self.asked is None:
            return 1.0 if self.is_full else None
        alpha1, alpha2, budget = self.asked
        return None if budget is not None and budget > 1 else round(alpha1 + alpha2, 9)

    @property
    def label(self) -> str:
        """Variant and budget, such as "h2o 0.1 + 0.1"."""
        return self.variant if self.asked is None else f"{self.variant} {budget_text(*self.asked)}"

    @cached_property
    def built(self) -> Strategy | None:
        """The strategy itself; None where this program does not know it any more."""
        try:
            fields = dict(self.run.configuration["strategy"])
            return build_strategy(fields.pop("name"), fields)
        except LookmError:
            return None


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the strategy and its budget.

    Attributes:
        label: model and benchmark in words; setting: data type and seed.
        question: when questions are read: "seen" by the compression, "unseen" or "many".
        model, benchmark: names of their YAMLs; is_paper_benchmark: whether the paper has numbers of it.
        rows: the runs, the full cache first, then by strategy and budget.
        frame: their samples, only those that all runs have that have any of a dataset.
        left_out: samples that only some runs have, or that differ between them; they are not compared.
        columns: task columns, their mean last.
        runs: protocol → the samples, ready for cells against any run.
        cells: protocol → (run, column) → cell, against the full cache.
    """

    label: str
    setting: str
    question: str
    model: str
    benchmark: str
    is_paper_benchmark: bool
    rows: tuple[Row, ...]
    frame: pandas.DataFrame
    left_out: int
    columns: tuple[Column, ...]
    runs: Mapping[str, Runs]
    cells: Mapping[str, Mapping[tuple[str, str], Cell]]

    @property
    def full(self) -> Row | None:
        """The run with the full cache."""
        return next((row for row in self.rows if row.is_full), None)

    @property
    def budgets(self) -> list[tuple[float, float, float | None]]:
        """What was asked for, that of the most strategies first."""
        counts = Counter(row.asked for row in self.rows if row.asked is not None)
        return sorted(counts, key=lambda one: (-counts[one], abs(sum(one[:2]) - 0.2), one[:2], one[2] or 0))

    def at(self, budget: Budget) -> list[Row]:
        """The runs at one budget, and those that have none: the full cache in any storage, strategies with a rule."""
        return [row for row in self.rows if row.asked in (None, budget)]

    def compressing(self, budget: Budget) -> list[Row]:
        """The runs at one budget, without the full cache."""
        return [row for row in self.at(budget) if not row.is_full]

    def cell(self, row: Row, column: str, protocol: str = "official") -> Cell | None:
        """One run's result in one column."""
        return self.cells[protocol].get((row.run.name, column))


def gather(runs: Iterable[RunFolder]) -> list[Group]:
    """Groups runs that may be compared and reads their samples.

    Raises:
        LookmError: no run has a sample.
    """
    groups = [group for listed in comparable_groups(runs) if (group := _group(listed)) is not None]
    if not groups:
        raise LookmError("the runs have no finished sample yet; `lookm run` computes some")
    return sorted(groups, key=lambda group: (not group.is_paper_benchmark, -len(group.rows), group.label))


def _group(listed: Sequence[RunFolder]) -> Group | None:
    whole = read_frame(listed)
    digests = whole.groupby(["dataset", "sample_id"], sort=False).digest.transform("nunique")
    frame = common_samples(whole[digests == 1])
    if frame.empty:
        return None
    runs = [run for run in listed if run.name in set(frame.run)]
    samples = whole[["dataset", "sample_id"]].drop_duplicates()
    rows = _rows(runs)
    full = next((row.run.name for row in rows if row.is_full), None)
    first = runs[0].configuration
    is_paper = is_paper_benchmark(first["benchmark"])
    columns = benchmark_columns(
        known_datasets(runs), set(frame.dataset), paper=first["benchmark"]["name"] == "milebench"
    )
    by_protocol = {name: Runs(frame, name) for name in PROTOCOLS}
    seed = f", seed {first['seed']}" if first.get("seed") else ""
    return Group(
        label=str(frame.label.iloc[0]),
        setting=f"{first['dtype']}{seed}",
        question=str(first.get("question", "seen")),
        model=first["model"]["name"],
        benchmark=first["benchmark"]["name"],
        is_paper_benchmark=is_paper,
        rows=rows,
        frame=frame,
        left_out=len(samples) - len(frame[["dataset", "sample_id"]].drop_duplicates()),
        columns=tuple(columns),
        runs=by_protocol,
        cells={name: own.cells(columns, full, whole=True) for name, own in by_protocol.items()},
    )


def _rows(runs: Sequence[RunFolder]) -> tuple[Row, ...]:
    semantics = {run.configuration["strategy"].get("semantics") for run in runs} - {None}
    rows = []
    for run in runs:
        settings = run_settings(run, several_semantics=len(semantics) > 1)
        alpha1, alpha2, budget = (settings[name] for name in ("alpha1", "alpha2", "budget"))
        asked = None if alpha1 is None else (alpha1, alpha2, budget)
        rows.append(Row(run, settings["strategy"], settings["variant"], asked))
    return tuple(sorted(rows, key=_order))


def _order(row: Row) -> tuple[Any, ...]:
    """The full cache first, then by strategy and budget, numbers of tokens last."""
    alpha1, _, budget = row.asked or (0, 0, None)
    return not row.is_full, place_of(row.strategy), row.variant, row.budget or 1, budget or 0, alpha1
