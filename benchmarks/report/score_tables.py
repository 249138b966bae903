"""The report's score tables: each run's scores by column, beside the paper's where it has any."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.report.changes import Change
from benchmarks.report.costs import cost_of
from benchmarks.report.scenes import Row, Scene
from benchmarks.run_table import percent, size
from benchmarks.tables.cells import Cell
from benchmarks.tables.paper import paper_experiments

Budget = tuple[float, float] | None


@dataclass(frozen=True)
class ScoreCell:
    """One score as it is shown.

    Attributes:
        text: in %, one decimal; "–" where there is none.
        direction: "up" or "down" where the difference from the full cache is no chance, else "".
        told: the difference and its interval in words; empty where there is none.
        paper: the paper's score in %, and `difference` ours minus the paper's; empty where it has none.
    """

    text: str
    direction: str = ""
    told: str = ""
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
    """The runs at one budget under one protocol; `chance` has one text a column."""

    budget: Budget
    protocol: str
    head: tuple[str, ...]
    lines: tuple[ScoreLine, ...]
    chance: tuple[str, ...]
    has_paper: bool


COSTS = ("budget %", "KV cache", "changed %", "ms/token")


def score_table(scene: Scene, budget: Budget, protocol: str, changes: dict[tuple[str, str], Change]) -> ScoreTable:
    """The runs at one budget, the full cache first.

    Args:
        scene: which runs.
        budget: α1 and α2; None shows only what keeps everything.
        protocol: "official" or "repaired"; the paper's numbers stand beside the official ones.
        changes: of `changes.changes`.
    """
    lines = []
    for row in scene.at(budget):
        cells = tuple(_cell(scene, row, column.name, protocol) for column in scene.columns)
        lines.append(ScoreLine(row, cells, _costs(scene, row, changes)))
    chance = tuple(percent(column.chance) for column in scene.columns)
    has_paper = any(cell.paper for line in lines for cell in line.cells)
    return ScoreTable(budget, protocol, tuple(c.name for c in scene.columns), tuple(lines), chance, has_paper)


def paper_score(scene: Scene, row: Row, column: str) -> float | None:
    """The paper's score in %, where it measured exactly this; None for another benchmark, model, budget or variant."""
    benchmark = row.run.configuration["benchmark"]
    plain = not benchmark.get("adversarial") and benchmark.get("combine_image") is None
    if not scene.is_paper_benchmark or not plain or row.variant != row.strategy:
        return None
    for experiment in paper_experiments().values():
        found = experiment.score(scene.model, row.strategy, row.alpha1, row.alpha2, column)
        if found is not None:
            return found
    return None


def _cell(scene: Scene, row: Row, column: str, protocol: str) -> ScoreCell:
    cell = scene.cell(row, column, protocol)
    if cell is None:
        return ScoreCell("–")
    paper = paper_score(scene, row, column) if protocol == "official" else None
    return ScoreCell(
        text=percent(cell.score),
        direction=_direction(cell),
        told=_told(cell),
        paper="" if paper is None else f"{paper:.1f}",
        difference="" if paper is None else f"{100 * cell.score - paper:+.1f}",
    )


def _direction(cell: Cell) -> str:
    return "" if cell.against_full is None else {1: "up", -1: "down", 0: ""}[cell.against_full.direction]


def _told(cell: Cell) -> str:
    found = cell.against_full
    if found is None:
        return f"{cell.n} samples"
    return (
        f"{100 * found.difference:+.1f} points [{100 * found.low:+.1f}, {100 * found.high:+.1f}] against the full "
        f"cache over {cell.paired} samples"
    )


def _costs(scene: Scene, row: Row, changes: dict[tuple[str, str], Change]) -> tuple[str, ...]:
    column = scene.columns[-1]
    cell, datasets = scene.cell(row, column.name), list(column.weights)
    change, speed = changes.get((row.run.name, column.name)), cost_of(scene, row, datasets, "decode_ms")
    return (
        percent(cell.budget if cell else None),
        size(cost_of(scene, row, datasets, "kept_bytes")),
        percent((change.compared - change.same) / change.compared if change else None),
        "–" if speed is None else f"{speed:.2f}",
    )


def headline(scene: Scene) -> list[tuple[str, str]]:
    """A few numbers that sum a scene up: what, and the number."""
    best = None
    column = scene.columns[-1].name
    for row in scene.rows:
        cell = scene.cell(row, column)
        if cell and not row.is_full and (best is None or cell.score > best[1]):
            best = (row, cell.score)
    facts = [
        ("runs", str(len(scene.rows))),
        ("samples each", str(len(scene.table[["dataset", "sample_id"]].drop_duplicates()))),
    ]
    full = scene.full and scene.cell(scene.full, column)
    if full:
        facts.append((f"full cache, {column}", f"{percent(full.score)} %"))
    if best:
        facts.append((f"best compressed: {best[0].label}", f"{percent(best[1])} %"))
    return facts
