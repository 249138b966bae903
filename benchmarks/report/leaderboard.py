"""The leaderboard: one HTML page of methods × budgets × tasks, to sort and to filter, made from run folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from benchmarks.report.groups import Group, Row
from benchmarks.report.page import made, template
from benchmarks.tables.cells import Cell, printed_difference
from benchmarks.tables.frame import budget_text
from benchmarks.tables.table import ABSENT, percent, signed, size

COSTS = ("bytes %", "cache", "ms/token", "changed %")


@dataclass(frozen=True)
class Shown:
    """One number of the page: its text, what it is sorted by (None is last), and what stands small beneath.

    Attributes:
        direction: 1 or -1 where the difference from the full cache is clear, else 0.
    """

    text: str
    value: float | None
    beneath: str = ""
    direction: int = 0


@dataclass(frozen=True)
class Line:
    """One run: its method, when it reads questions, the budget it was asked for, costs, and scores by column."""

    row: Row
    link: str
    question: str
    asked: Shown
    costs: tuple[Shown, ...]
    scores: tuple[Shown, ...]


@dataclass(frozen=True)
class Board:
    """The runs of one model and benchmark, best mean first, whenever their questions were read."""

    label: str
    setting: str
    samples: int
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    chance: tuple[str, ...]

    @property
    def questions(self) -> list[str]:
        """What there is of seen, unseen and many."""
        return list(dict.fromkeys(line.question for line in self.lines))

    @property
    def budgets(self) -> list[str]:
        """What was asked for, largest first."""
        texts = {line.asked.text: line.asked.value or 0.0 for line in self.lines if not line.row.is_full}
        return sorted(texts, key=lambda text: -texts[text])


def boards(groups: Iterable[Group], page: Path) -> list[Board]:
    """One board for each model and benchmark; groups that differ in when questions are read stand on one.

    Args:
        groups: as `benchmarks.report.groups.gather` makes them; each is compared with its own full cache.
        page: where the page will be: links to run folders are relative to it.
    """
    together: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        together.setdefault((group.label, group.setting), []).append(group)
    return [_board(listed, page) for listed in together.values()]


def render(listed: Sequence[Board]) -> str:
    """The page's HTML, complete in itself. All that runs say is escaped."""
    return template("leaderboard").render(boards=listed, costs=COSTS, **made())


def _board(groups: Sequence[Group], page: Path) -> Board:
    names = list(dict.fromkeys(column.name for group in groups for column in group.columns))
    means = list(dict.fromkeys(group.columns[-1].name for group in groups))
    columns = [*means, *(name for name in names if name not in means)]
    lines = [_line(group, row, columns, page) for group in groups for row in group.rows]
    lines.sort(key=lambda line: -(line.scores[0].value or 0.0))
    chance = [next((c.chance for g in groups for r in g.rows if (c := g.cell(r, name))), None) for name in columns]
    samples = max(len(group.frame[["dataset", "sample_id"]].drop_duplicates()) for group in groups)
    first = groups[0]
    return Board(first.label, first.setting, samples, tuple(columns), tuple(lines), tuple(map(percent, chance)))


def _line(group: Group, row: Row, columns: Sequence[str], page: Path) -> Line:
    link = quote(Path(os.path.relpath(row.run.path / "run.json", page.parent)).as_posix())
    mean = group.cell(row, group.columns[-1].name)
    asked = Shown("all", 1.0) if row.asked is None else Shown(budget_text(*row.asked), row.budget or row.asked[2])
    question = str(row.run.configuration.get("question", "seen"))
    scores = tuple(_score(group, row, name) for name in columns)
    return Line(row, link, question, asked, _costs(mean), scores)


def _costs(cell: Cell | None) -> tuple[Shown, ...]:
    if cell is None:
        return (Shown(ABSENT, None),) * len(COSTS)
    speed = ABSENT if cell.decode_ms is None else f"{cell.decode_ms:.2f}"
    return (
        Shown(percent(cell.budget), cell.budget),
        Shown(size(cell.kept_bytes), cell.kept_bytes),
        Shown(speed, cell.decode_ms),
        Shown(percent(cell.changed), cell.changed),
    )


def _score(group: Group, row: Row, column: str) -> Shown:
    cell = group.cell(row, column)
    if cell is None:
        return Shown(ABSENT, None)
    return Shown(percent(cell.score), cell.score, _beneath(group, row, column, cell), cell.direction)


def _beneath(group: Group, row: Row, column: str, cell: Cell) -> str:
    """The difference from the full cache in points, and its interval at 95 % where there are pairs enough."""
    full = group.cell(group.full, column) if group.full and not row.is_full else None
    if full is None or cell.difference is None:
        return ""
    text = signed(printed_difference(cell.score, full.score, cell.difference))
    ends = cell.interval
    return text if ends is None else f"{text} [{signed(100 * ends.low, end=True)}, {signed(100 * ends.high, end=True)}]"
