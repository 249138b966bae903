"""An experiment of the paper, filled with the runs there are: the paper's numbers, ours, and what to say of both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.cells import (
    COLUMN_MEAN,
    DATASET_MEAN,
    Column,
    benchmark_columns,
    dataset_columns,
    mean_column,
    task_columns,
)
from benchmarks.evaluation.comparable import check_comparable, check_same_samples, common_samples
from benchmarks.evaluation.store import RunFolder
from benchmarks.milebench import image_quantity_level
from benchmarks.tables.cells import Cell, Runs
from benchmarks.tables.experiments import Experiment, Row, matching_runs
from benchmarks.tables.frame import read_frame
from benchmarks.tables.paper import PaperExperiment, is_paper_benchmark, paper_experiments
from lookm.errors import LookmError

if TYPE_CHECKING:
    import pandas

ALL = "all samples"
LEVELS = {"Few": "fewer than 6 images", "Medium": "6 to 31 images", "Many": "more than 31 images"}


@dataclass(frozen=True)
class Reproduction:
    """One table or figure: rows × columns, as far as there are runs.

    Attributes:
        experiment: what was asked for; paper: what the paper says of it.
        label: what titles call model and benchmark.
        protocol: whose scores, "official" or "repaired"; samples: which samples, `ALL` or a part of them in words.
        columns: the columns, the mean of them last where there are several.
        runs: row → name of its run; rows without one are absent.
        cells: (row, column's name) → the result.
        paper_scores: (row, column's name) → the paper's score in %; empty where it has no number for this.
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

    @property
    def full(self) -> Row | None:
        """The row with the full cache, where it has a run."""
        return next((row for row in self.runs if row.is_full), None)

    @property
    def missing_rows(self) -> tuple[Row, ...]:
        """Rows that lack a cell in any column."""
        names = [column.name for column in self.columns]
        return tuple(row for row in self.experiment.rows if any((row, name) not in self.cells for name in names))

    def is_partial(self, row: Row, column: Column) -> bool:
        """Whether a cell is over fewer samples or datasets than the benchmark has in its column."""
        cell = self.cells.get((row, column.name))
        return self.samples == ALL and cell is not None and cell.n + cell.failed < column.samples


def reproduce(
    experiment: Experiment,
    runs: Sequence[RunFolder],
    *,
    protocol: str = "official",
    where: Mapping[str, str] | None = None,
    common: bool = False,
    split: str | None = None,
    by_dataset: bool = False,
) -> list[Reproduction]:
    """Fills an experiment from the runs there are.

    Args:
        where: further conditions on runs (`comparable.facts_of`), to choose between runs that differ.
        split: a result for each part of the samples: "truncation", those that lost no image to the context limit and
            those that did; "images", MileBench's Few, Medium and Many.
        by_dataset: a column for each dataset instead of the paper's columns.

    Raises:
        LookmError: runs that must not stand in one table: what differs and how to choose.
    """
    matched = matching_runs(experiment, runs, where or {})
    check_comparable([run for several in matched.values() for run in several])
    for row, several in matched.items():
        if len(several) > 1:
            names = " and ".join(str(run.path) for run in several)
            raise LookmError(f"{row.strategy} is there twice, in {names}; give --results without one of them")
    chosen = {row: several[0] for row, several in matched.items() if several}
    frame = read_frame(chosen.values())
    frame = frame[frame.dataset.isin([info.dataset for info in experiment.datasets])]
    if common:
        frame = common_samples(frame, datasets=True)
    check_same_samples(frame)
    parts = _parts(frame, split)
    return [_fill(experiment, chosen, part, protocol, samples, by_dataset) for samples, part in parts.items()]


def _parts(frame: pandas.DataFrame, split: str | None) -> dict[str, pandas.DataFrame]:
    """Names of the parts of the samples that get a table each → their rows."""
    if split == "truncation":
        lost = frame.dropped_images > 0
        return {
            "samples that lost no image": frame[~lost],
            "samples that lost images to the context limit": frame[lost],
        }
    if split == "images":
        levels = frame.n_images.map(image_quantity_level)
        parts = {f"{level}: {text}": frame[levels == level] for level, text in LEVELS.items()}
        return {text: part for text, part in parts.items() if len(part)} or {ALL: frame}
    return {ALL: frame}


def _fill(
    experiment: Experiment,
    chosen: Mapping[Row, RunFolder],
    frame: pandas.DataFrame,
    protocol: str,
    samples: str,
    by_dataset: bool,
) -> Reproduction:
    paper = paper_experiments().get(experiment.name)
    columns = _columns(experiment, paper, by_dataset)
    rows = {run.name: row for row, run in chosen.items()}
    full = next((name for name, row in rows.items() if row.is_full), None)
    cells = {(rows[run], column): cell for (run, column), cell in Runs(frame, protocol).cells(columns, full).items()}
    scores, why_not = _paper_scores(experiment, paper, columns, samples)
    first = next(iter(chosen.values()), None)
    notes = [*why_not, *_notes(experiment, first, cells)]
    if chosen and full is None:
        notes.append("No run with the full cache: nothing to compare with.")
    label = str(frame.label.iloc[0]) if len(frame) else f"{experiment.model} · {experiment.benchmark.label}"
    names = {row: run.name for row, run in chosen.items()}
    return Reproduction(
        experiment, paper, label, protocol, samples, tuple(columns), names, cells, scores, tuple(dict.fromkeys(notes))
    )


def _columns(experiment: Experiment, paper: PaperExperiment | None, by_dataset: bool) -> list[Column]:
    selected = {info.dataset for info in experiment.datasets}
    infos = experiment.benchmark.datasets
    if by_dataset or (paper is not None and paper.datasets):
        columns = dataset_columns(experiment.datasets)
        mean = [mean_column(columns, DATASET_MEAN)] if by_dataset and len(columns) > 1 else []
        return [*columns, *mean]
    if paper is None:
        return benchmark_columns(infos, selected, paper=True)
    columns = task_columns(paper.columns, infos, selected)
    return [*columns, mean_column(columns, COLUMN_MEAN)] if len(columns) > 1 else columns


def _paper_scores(
    experiment: Experiment, paper: PaperExperiment | None, columns: Sequence[Column], samples: str
) -> tuple[dict[tuple[Row, str], float], list[str]]:
    """The paper's numbers that may stand beside ours; none, and why, where it measured something else."""
    if paper is None:
        return {}, []
    label = experiment.benchmark.label
    if not is_paper_benchmark(experiment.identity["benchmark"]):
        return {}, [f"{label} is not the paper's benchmark: the paper has no numbers for it, and none are shown."]
    if not paper.scores:
        return {}, [f"The paper shows {paper.title} as a picture only; there are no numbers to compare with."]
    if experiment.model not in paper.models:
        return {}, [f"{paper.title} of the paper is of {' and '.join(paper.models)}, not of {experiment.model}."]
    if samples != ALL:
        return {}, ["The paper has no numbers for a part of the samples."]
    scores = {}
    for row in experiment.rows:
        asked = experiment.model, row.strategy, row.alpha1, row.alpha2
        for column in columns:
            value = paper.mean(*asked) if column.name == COLUMN_MEAN else paper.score(*asked, column.name)
            if value is not None:
                scores[row, column.name] = value
    return scores, []


def _notes(experiment: Experiment, run: RunFolder | None, cells: Mapping[tuple[Row, str], Cell]) -> list[str]:
    notes = []
    usual: Mapping[str, Any] = experiment.identity["model"]
    actual = run.configuration["model"] if run is not None else usual
    changed = ", ".join(f"{key}={value}" for key, value in actual.items() if usual.get(key) != value)
    if changed:
        notes.append(f"Run with {changed}, unlike configs/model/{experiment.model}.yaml.")
    failed = max((cell.failed for cell in cells.values()), default=0)
    if failed:
        notes.append(f"Up to {failed} samples of a cell have no answer; scores are over those that have one.")
    return notes
