"""An experiment of the paper, filled with the runs there are: the paper's numbers, ours, and what to say of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.milebench import PAPER_COLUMNS
from benchmarks.tables.cells import Cell, Column, compute_cells, dataset_columns, mean_column, task_columns
from benchmarks.tables.collection import Run, collect_runs
from benchmarks.tables.comparability import check_comparable, check_same_samples, common_samples
from benchmarks.tables.experiment import Experiment, Row, matching_runs
from benchmarks.tables.paper import PaperExperiment, paper_experiments
from lookm.errors import LookmError

if TYPE_CHECKING:
    import pandas

ALL, WHOLE, TRUNCATED = "all samples", "samples that lost no image", "samples that lost images to the context limit"


@dataclass(frozen=True)
class Reproduction:
    """One table or figure: rows × columns, as far as there are runs.

    Attributes:
        experiment: what was asked for; paper: what the paper says of it.
        label: what titles call model and benchmark.
        protocol: whose scores, "official" or "repaired"; samples: which samples, one of `ALL`, `WHOLE`, `TRUNCATED`.
        columns: the columns, the mean of them last where there are several.
        runs: row → name of its run; rows without one are absent.
        cells: (row, column's name) → what was found.
        paper_scores: (row, column's name) → the paper's score in %; empty where it has no number for this.
        notes: what a reader must know, one sentence each.
    """

    experiment: Experiment
    paper: PaperExperiment | None
    label: str
    protocol: str
    samples: str
    columns: tuple[Column, ...]
    runs: Mapping[Row, str]
    cells: Mapping[tuple[Row, str], Cell]
    paper_scores: Mapping[tuple[Row, str], float]
    notes: tuple[str, ...]

    def partial(self, column: Column) -> bool:
        """Whether some datasets or samples of the column are missing from the runs."""
        sizes = [cell.n + cell.failed for (_, name), cell in self.cells.items() if name == column.name]
        return bool(sizes) and (max(sizes) < column.samples or len(column.weights) < column.datasets)

    @property
    def missing_rows(self) -> tuple[Row, ...]:
        """Rows that lack a cell in any column."""
        names = [column.name for column in self.columns]
        return tuple(row for row in self.experiment.rows if any((row, name) not in self.cells for name in names))


def reproduce(
    experiment: Experiment,
    runs: Sequence[Run],
    *,
    protocol: str = "official",
    where: Mapping[str, str] | None = None,
    common: bool = False,
    split: bool = False,
) -> list[Reproduction]:
    """Fills an experiment from the runs there are.

    Args:
        experiment: what to fill.
        runs: where to look for its rows; other runs are ignored.
        protocol: "official" or "repaired".
        where: further conditions on runs (`experiment.facts_of`), to choose between runs that differ.
        common: compare only the samples that all runs have, where they have different ones.
        split: two results, of the samples that lost no image to the context limit and of those that did.

    Raises:
        LookmError: runs that must not stand in one table: what differs and how to choose.
    """
    matched = matching_runs(experiment, runs, where or {})
    found = [run for several in matched.values() for run in several]
    check_comparable(found)
    for row, several in matched.items():
        if len(several) > 1:
            names = " and ".join(str(run.folder) for run in several)
            raise LookmError(f"{row.strategy} is there twice, in {names}; give --results without one of them")
    chosen = {row: several[0] for row, several in matched.items() if several}
    table = collect_runs(chosen.values())
    table = table[table.dataset.isin([info.dataset for info in experiment.datasets])]
    if common:
        table = common_samples(table)
    check_same_samples(table)
    parts = {ALL: table}
    if split:
        lost = table.dropped_images > 0
        parts = {WHOLE: table[~lost], TRUNCATED: table[lost]}
    return [_fill(experiment, chosen, part, protocol, samples) for samples, part in parts.items()]


def _fill(
    experiment: Experiment, chosen: Mapping[Row, Run], table: pandas.DataFrame, protocol: str, samples: str
) -> Reproduction:
    paper = paper_experiments().get(experiment.name)
    columns = _columns(experiment, paper, list(dict.fromkeys(table.dataset)))
    full = next((run.name for row, run in chosen.items() if row.is_full), None)
    by_run = compute_cells(table, columns, full=full, protocol=protocol)
    names = {row: run.name for row, run in chosen.items()}
    rows = {name: row for row, name in names.items()}
    cells = {(rows[run], column): cell for (run, column), cell in by_run.items()}
    first = next(iter(chosen.values()), None)
    scores, why_not = _paper_scores(experiment, paper, columns, first, samples)
    notes = [*why_not, *_notes(experiment, first, cells)]
    if chosen and full is None:
        notes.append("No run with the full cache: nothing to compare with.")
    label = str(table.label.iloc[0]) if len(table) else f"{experiment.model} · {experiment.benchmark.label}"
    return Reproduction(
        experiment, paper, label, protocol, samples, tuple(columns), names, cells, scores, tuple(dict.fromkeys(notes))
    )


def _columns(experiment: Experiment, paper: PaperExperiment | None, present: Sequence[str]) -> list[Column]:
    if paper is not None and paper.datasets:
        return dataset_columns(experiment.datasets)
    names = paper.columns if paper is not None else PAPER_COLUMNS
    columns = task_columns(names, experiment.benchmark.datasets, present, experiment.datasets)
    return [*columns, mean_column(columns)] if len(columns) > 1 else columns


def _paper_scores(
    experiment: Experiment,
    paper: PaperExperiment | None,
    columns: Sequence[Column],
    run: Run | None,
    samples: str,
) -> tuple[dict[tuple[Row, str], float], list[str]]:
    """The paper's numbers that may stand beside ours; none, and why, where it measured something else."""
    if paper is None:
        return {}, []
    label = experiment.benchmark.label
    if experiment.benchmark.name != "milebench":
        return {}, [f"{label} is not the paper's benchmark: the paper has no numbers for it, and none are shown."]
    if run is not None and (changed := _changes(experiment.benchmark_config, run.configuration["benchmark"])):
        return {}, [f"The paper has no numbers for {label} with {changed}."]
    if not paper.scores:
        return {}, [f"The paper shows {paper.title} as a picture only; there are no numbers to compare with."]
    if experiment.model not in paper.models:
        return {}, [f"{paper.title} of the paper is of {' and '.join(paper.models)}, not of {experiment.model}."]
    if samples != ALL:
        return {}, ["The paper has no numbers for a part of the samples."]
    scores = {
        (row, column.name): value
        for row in experiment.rows
        for column in columns
        if (value := paper.score(experiment.model, row.strategy, row.alpha1, row.alpha2, column.name)) is not None
    }
    return scores, []


def _notes(experiment: Experiment, run: Run | None, cells: Mapping[tuple[Row, str], Cell]) -> list[str]:
    notes = []
    if run is not None and (changed := _changes(experiment.model_config, run.configuration["model"])):
        notes.append(f"Run with {changed}, unlike configs/model/{experiment.model}.yaml.")
    failed = max((cell.failed for cell in cells.values()), default=0)
    if failed:
        notes.append(f"Up to {failed} samples of a cell have no answer; scores are over those that have one.")
    return notes


def _changes(usual: Mapping[str, Any], actual: Mapping[str, Any]) -> str:
    """Fields in which a run's configuration is not the usual one, in words."""
    return ", ".join(f"{key}={value}" for key, value in actual.items() if usual.get(key) != value)
