"""The report's score tables: each run's scores by column, beside the paper's where it has any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.report.groups import Budget, Group, Row
from benchmarks.tables.cells import Cell, printed_difference
from benchmarks.tables.paper import paper_experiments
from benchmarks.tables.score_table import minus_paper
from benchmarks.tables.table import ABSENT, percent, signed, size

COSTS = ("budget %", "KV cache", "changed %", "ms/token")


@dataclass(frozen=True)
class ScoreCell:
    """One score as it is shown: in %, beside it the paper's and ours minus the paper's, empty where it has none."""

    text: str
    n: int = 0
    paper: str = ""
    difference: str = ""


@dataclass(frozen=True)
class ScoreLine:
    """One run: its scores by column, then budget, cache size, changed answers and speed."""

    row: Row
    cells: tuple[ScoreCell, ...]
    costs: tuple[str, ...]


@dataclass(frozen=True)
class ScoreTable:
    """The runs at one budget under one protocol.

    Attributes:
        lines: the runs, the full cache first; chance: a text for each column.
        differences: for the page's script: `rows` and `columns` (names, with the rows' colours), `against` (a list for
            each baseline of lists for each row: [difference, low, high, samples] or null for each column, in points).
    """

    budget: Budget
    protocol: str
    head: tuple[str, ...]
    costs: tuple[str, ...]
    lines: tuple[ScoreLine, ...]
    chance: tuple[str, ...]
    differences: Mapping[str, Any]


def score_table(group: Group, budget: Budget, protocol: str, colours: Mapping[str, str]) -> ScoreTable:
    """The runs at one budget, the full cache first.

    Args:
        budget: which; None shows only what keeps everything.
        protocol: "official" or "repaired"; the paper's numbers stand beside the official ones.
        colours: of the rows, by strategy.
    """
    rows = group.at(budget)
    lines = [
        ScoreLine(
            row, tuple(_cell(group, row, column.name, protocol) for column in group.columns), cost_texts(group, row)
        )
        for row in rows
    ]
    levels = [next((cell.chance for row in rows if (cell := group.cell(row, c.name))), None) for c in group.columns]
    names = tuple(column.name for column in group.columns)
    differences = {
        "rows": [{"name": row.variant, "colour": colours[row.strategy]} for row in rows],
        "columns": names,
        "against": [_against(group, rows, baseline, protocol) for baseline in rows],
    }
    timed = any(line.costs[-1] != ABSENT for line in lines)
    costs = COSTS if timed else COSTS[:-1]
    return ScoreTable(budget, protocol, names, costs, tuple(lines), tuple(map(percent, levels)), differences)


def _against(group: Group, rows: list[Row], baseline: Row, protocol: str) -> list[list[list[float | None] | None]]:
    """Differences of all rows from one of them."""
    runs = group.runs[protocol]
    cells = runs.cells(group.columns, baseline.run.name, names=[row.run.name for row in rows], whole=True)

    def entry(row: Row, column: str) -> list[float | None] | None:
        cell, other = cells.get((row.run.name, column)), cells.get((baseline.run.name, column))
        if cell is None or other is None or cell.difference is None:
            return None
        points = printed_difference(cell.score, other.score, cell.difference)
        ends = [None, None] if cell.interval is None else [100 * cell.interval.low, 100 * cell.interval.high]
        return [points, *(None if end is None else round(end, 3) for end in ends), cell.paired]

    return [[entry(row, column.name) for column in group.columns] for row in rows]


def paper_score(group: Group, row: Row, column: str) -> float | None:
    """The paper's score in %, where it measured exactly this; None for another benchmark, model, budget or variant."""
    if not group.is_paper_benchmark or row.variant != row.strategy:
        return None
    alpha1, alpha2, _ = row.asked or (None, None, None)
    for experiment in paper_experiments().values():
        score = experiment.score(group.model, row.strategy, alpha1, alpha2, column)
        if score is not None:
            return score
    return None


def _cell(group: Group, row: Row, column: str, protocol: str) -> ScoreCell:
    cell = group.cell(row, column, protocol)
    if cell is None:
        return ScoreCell(ABSENT)
    paper = paper_score(group, row, column) if protocol == "official" else None
    if paper is None:
        return ScoreCell(percent(cell.score), cell.n)
    return ScoreCell(percent(cell.score), cell.n, f"{paper:.1f}", signed(minus_paper(cell, paper)))


def cost_texts(group: Group, row: Row) -> tuple[str, ...]:
    """A run's texts for `COSTS`, over the samples of the last column."""
    cell = group.cell(row, group.columns[-1].name)
    if cell is None:
        return (ABSENT,) * len(COSTS)
    return percent(cell.budget), size(cell.kept_bytes), percent(cell.changed), _speed(cell)


def _speed(cell: Cell) -> str:
    """The decode time that belongs to this run alone, and of how many samples it is where these are not all."""
    if cell.decode_ms is None:
        return ABSENT
    return f"{cell.decode_ms:.2f}" + (f" ({cell.timed} of {cell.n} samples)" if cell.timed < cell.n else "")


def headline(group: Group) -> list[tuple[str, str]]:
    """A few numbers that sum a group up: what, and the number."""
    column = group.columns[-1].name
    scored = [(row, cell.score) for row in group.rows if not row.is_full and (cell := group.cell(row, column))]
    facts = [
        ("runs", str(len(group.rows))),
        ("samples each", str(len(group.frame[["dataset", "sample_id"]].drop_duplicates()))),
    ]
    full = group.cell(group.full, column) if group.full else None
    if full:
        facts.append((f"full cache, {column}", f"{percent(full.score)} %"))
    if scored:
        row, score = max(scored, key=lambda pair: pair[1])
        facts.append((f"best compressed: {row.label}", f"{percent(score)} %"))
    return facts
