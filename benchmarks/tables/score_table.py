"""A filled experiment as a table: the paper next to ours, in full, in one line a strategy, or dataset by dataset."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.evaluation.cells import COLUMN_MEAN, DATASET_MEAN, TASK_MEAN
from benchmarks.tables.cells import FEWEST_PAIRS, LEVEL, RESAMPLES, Cell, printed_difference
from benchmarks.tables.experiments import Row as ExperimentRow
from benchmarks.tables.frame import budget_text
from benchmarks.tables.reproduction import ALL, Reproduction
from benchmarks.tables.table import ABSENT, Row, Table, Text, in_percent, percent, signed

UP, DOWN, PARTIAL = "▲", "▼", "°"
_MEANS = {
    TASK_MEAN: "each task code counts alike",
    COLUMN_MEAN: "the paper's columns count alike, N-1 and N-2 together as NH; run.py's task mean counts them apart",
    DATASET_MEAN: "each dataset counts alike",
}


def full_table(result: Reproduction) -> Table:
    """Several lines a strategy: ours, the paper's, differences, intervals, changed answers, realised budget."""
    rows = [Row(("", name, *cells), "dim") for name, cells in _levels(result)]
    for row in result.experiment.rows:
        lines = _block(result, row)
        name = row_name(result, row)
        rows += [
            Row((name if not place else "", kind, *cells), begins_block=not place)
            for place, (kind, cells) in enumerate(lines)
        ]
    head = ("strategy", "", *(column.name for column in result.columns))
    return Table(title(result), head, tuple(rows), notes(result), text_columns=2, records=_records(result))


def compact_table(result: Reproduction) -> Table:
    """One line a strategy: scores, the best compressed one of each column in bold, budget and changed answers."""
    best = _best(result)
    mean = result.columns[-1].name
    rows = []
    for row in result.experiment.rows:
        scores = [_score(result, row, column.name, best) for column in result.columns]
        cell = result.cells.get((row, mean))
        costs = [percent(cell.budget if cell else None), percent(cell.changed if cell else None)]
        rows.append(Row((row_name(result, row), *scores, *costs)))
    levels = enumerate(_levels(result))
    rows += [Row((name, *cells, "", ""), "dim", begins_block=not place) for place, (name, cells) in levels]
    head = ("strategy", *(column.name for column in result.columns), "budget %", "changed %")
    return Table(title(result), head, tuple(rows), notes(result, compact=True), records=_records(result))


def dataset_table(result: Reproduction) -> Table:
    """One line a dataset, one column a strategy."""
    best = _best(result)
    rows = []
    for place, column in enumerate(result.columns):
        cells = [result.cells.get((row, column.name)) for row in result.experiment.rows]
        sizes = [cell.n for cell in cells if cell]
        levels = [cell.chance for cell in cells if cell]
        last = place == len(result.columns) - 1 and len(column.infos) > 1
        task = "" if last else column.infos[0].task
        scores = [_score(result, row, column.name, best) for row in result.experiment.rows]
        counts = [str(max(sizes)) if sizes else ABSENT, percent(levels[0] if levels else None)]
        rows.append(Row((column.name, task, *counts, *scores), "foot" if last else ""))
    head = ("dataset", "task", "n", "chance", *(row_name(result, row) for row in result.experiment.rows))
    below = notes(result, compact=True)
    return Table(title(result), head, tuple(rows), below, text_columns=2, records=_records(result))


def title(result: Reproduction) -> str:
    """What the table is of, whose scores it has, and of which samples."""
    experiment, paper = result.experiment, result.paper
    budgets = _budgets(experiment.rows)
    semantics = {row.semantics for row in experiment.rows if row.semantics is not None}
    parts = [paper.title if paper else experiment.name, result.label]
    parts += budgets if len(budgets) == 1 else []
    parts += [f"{result.protocol} protocol", *(f"semantics {name}" for name in sorted(semantics)), "scores in %"]
    return " · ".join([*parts, *([result.samples] if result.samples != ALL else [])])


def row_name(result: Reproduction, row: ExperimentRow) -> str:
    """The strategy, and its budget where the experiment has several."""
    several = len(_budgets(result.experiment.rows)) > 1
    budget = _budget(row).removeprefix("α ").replace(" + ", "+")
    return f"{row.strategy} {budget}" if several and row.alpha1 is not None else row.strategy


def _budgets(rows: Sequence[ExperimentRow]) -> set[str]:
    return {_budget(row) for row in rows if row.alpha1 is not None}


def _budget(row: ExperimentRow) -> str:
    if row.alpha1 is None or row.alpha2 is None:
        return ""
    text = budget_text(row.alpha1, row.alpha2, row.budget)
    return f"α {text}" if row.budget is None else text


def notes(result: Reproduction, *, compact: bool = False, marks: bool = True) -> tuple[str, ...]:
    """The sentences below the table: what the marks mean, what is missing and the command that fills it.

    Args:
        compact: in one line a strategy.
        marks: what marks and lines of a table mean; a figure has none.
    """
    out = _meanings(result, compact=compact) if marks else []
    out += _partial_notes(result)
    if result.paper_scores and result.protocol != "official":
        out.append("The paper's numbers are of the official protocol; no difference from them is shown.")
    out += result.notes
    missing = result.missing_rows
    if missing and result.samples == ALL:
        names = ", ".join(row_name(result, row) for row in missing)
        which = f"missing for {names}" if len(missing) < len(result.experiment.rows) else "no run has this yet"
        out.append(f"{ABSENT}: {which}. To fill it: {result.experiment.command(missing)}")
    return tuple(out)


def _meanings(result: Reproduction, *, compact: bool) -> list[str]:
    out = []
    compared = sum(cell.interval is not None for cell in result.cells.values())
    if compared:
        out.append(
            f"{UP} {DOWN}: the {LEVEL:.0%} interval of the difference from the full cache lies above or below zero "
            f"(paired bootstrap within each dataset, {RESAMPLES:,} resamples, seed 0). Of {compared} such intervals "
            f"about {compared * (1 - LEVEL):.0f} would by chance alone."
        )
    if any(cell.paired and cell.interval is None for cell in result.cells.values()):
        out.append(f"No interval and no mark where a dataset has fewer than {FEWEST_PAIRS} pairs.")
    if not compact and any(cell.changed is not None for cell in result.cells.values()):
        out.append(
            "changed: answers that differ from the full cache's at all; at token: the median place of the first token "
            "that does. The first token of an answer comes from the prefill, before anything is compressed."
        )
    mean = result.columns[-1].name
    out += [f"{mean}: {_MEANS[mean]}."] if mean in _MEANS else []
    if compact:
        out.append("bold: the best of the compressed ones; budget: bytes kept of the full cache's, over all samples.")
    return out


def _partial_notes(result: Reproduction) -> list[str]:
    """Which runs lack samples or datasets of the benchmark's, those with the same gaps together."""
    gaps: dict[str, list[str]] = {}
    whole = {info.dataset: info for column in result.columns for info in column.infos}
    for row in result.runs:
        cells = [cell for column in result.columns if (cell := result.cells.get((row, column.name)))]
        absent = [name for name in whole if not any(name in cell.datasets for cell in cells)]
        if not any(result.is_partial(row, column) for column in result.columns):
            continue
        text = f"{len(whole) - len(absent)} of {len(whole)} datasets" if absent else "not all samples"
        shown = ", ".join(absent[:5]) + (" …" if len(absent) > 5 else "")
        gaps.setdefault(text + (f" (without {shown})" if absent else ""), []).append(row_name(result, row))
    everyone = len(result.runs)
    return [
        f"{PARTIAL}: {text}{'' if len(names) == everyone else ': ' + ', '.join(names)}." for text, names in gaps.items()
    ]


def _levels(result: Reproduction) -> list[tuple[str, list[str]]]:
    """What is the same for all strategies: samples, those that lost images, chance levels."""
    by_column = [
        [cell for row in result.experiment.rows if (cell := result.cells.get((row, column.name)))]
        for column in result.columns
    ]
    lines = [("n", [str(max(cell.n for cell in cells)) if cells else ABSENT for cells in by_column])]
    lost = [max((cell.lost_images for cell in cells), default=0) for cells in by_column]
    if any(lost):
        lines.append(("lost images", [str(number) for number in lost]))
    levels = [cells[0].chance if cells else None for cells in by_column]
    if any(level is not None for level in levels):
        lines.append(("chance", [percent(level) for level in levels]))
    return lines


def _block(result: Reproduction, row: ExperimentRow) -> list[tuple[str, Sequence[str | Text]]]:
    """The lines of one strategy at one budget."""
    cells = [result.cells.get((row, column.name)) for column in result.columns]
    lines: list[tuple[str, Sequence[str | Text]]] = [
        ("ours", [_score(result, row, column.name) for column in result.columns])
    ]

    def add(kind: str, text: Callable[[Cell], str]) -> None:
        lines.append((kind, [ABSENT if cell is None else text(cell) for cell in cells]))

    if result.paper_scores:
        paper = [result.paper_scores.get((row, column.name)) for column in result.columns]
        lines.append(("paper", [ABSENT if value is None else f"{value:.1f}" for value in paper]))
        if result.protocol == "official":
            lines.append(("ours − paper", [signed(minus_paper(*pair)) for pair in zip(cells, paper, strict=True)]))
    if not row.is_full and any(cell is not None and cell.difference is not None for cell in cells):
        lines.append(("ours − full", [signed(minus_full(result, row, column.name)) for column in result.columns]))
        add("95 % from", lambda cell: signed(100 * cell.interval.low if cell.interval else None, end=True))
        add("95 % to", lambda cell: signed(100 * cell.interval.high if cell.interval else None, end=True))
        add("changed %", lambda cell: percent(cell.changed))
        add("at token", lambda cell: ABSENT if cell.first_change is None else f"{cell.first_change:g}")
    if not row.is_full and any(cells):
        add("budget %", lambda cell: percent(cell.budget))
        if any(cell and percent(cell.budget) != percent(cell.tokens) for cell in cells):
            add("tokens %", lambda cell: percent(cell.tokens))
    return lines


def minus_full(result: Reproduction, row: ExperimentRow, column: str) -> float | None:
    """The difference from the full cache in points, such that it is that of the printed scores where it can be."""
    cell = result.cells.get((row, column))
    full = result.cells.get((result.full, column)) if result.full else None
    if cell is None or full is None or cell.difference is None:
        return None
    return printed_difference(cell.score, full.score, cell.difference)


def minus_paper(cell: Cell | None, paper: float | None) -> float | None:
    """Our printed score less the paper's, in points."""
    return None if cell is None or paper is None else round(100 * cell.score, 1) - round(paper, 1)


def _best(result: Reproduction) -> dict[str, float]:
    """The best printed score of each column, among the rows that compress and have all datasets that any has."""
    most: dict[str, int] = {}
    for (_, column), cell in result.cells.items():
        most[column] = max(most.get(column, 0), len(cell.datasets))
    best: dict[str, float] = {}
    for (row, column), cell in result.cells.items():
        if not row.is_full and len(cell.datasets) == most[column]:
            best[column] = max(best.get(column, 0.0), round(100 * cell.score, 1))
    return best


def _score(result: Reproduction, row: ExperimentRow, name: str, best: dict[str, float] | None = None) -> str | Text:
    cell = result.cells.get((row, name))
    if cell is None:
        return ABSENT
    column = next(column for column in result.columns if column.name == name)
    mark = ("", UP, DOWN)[cell.direction] + (PARTIAL if result.is_partial(row, column) else "")
    style = ("", "up", "down")[cell.direction]
    if best is not None:
        style = "best" if not row.is_full and round(100 * cell.score, 1) == best.get(name) else ""
    return Text(percent(cell.score), mark, style)


def _records(result: Reproduction) -> tuple[dict[str, Any], ...]:
    """A mapping for each cell, missing ones included; scores and shares in %, unrounded."""
    return tuple(_record(result, row, column.name) for row in result.experiment.rows for column in result.columns)


def _record(result: Reproduction, row: ExperimentRow, name: str) -> dict[str, Any]:
    experiment = result.experiment
    cell, paper = result.cells.get((row, name)), result.paper_scores.get((row, name))
    column = next(column for column in result.columns if column.name == name)
    interval = cell.interval if cell else None
    against_paper = None
    if cell is not None and paper is not None and result.protocol == "official":
        against_paper = 100 * cell.score - paper

    def shares(**fields: str) -> dict[str, float | None]:
        return {name: in_percent(getattr(cell, field, None)) for name, field in fields.items()}

    def plain(*names: str) -> dict[str, Any]:
        return {name: getattr(cell, name, None) for name in names}

    return {
        **{"experiment": experiment.name, "model": experiment.model, "benchmark": experiment.benchmark.name},
        **{"samples": result.samples, "protocol": result.protocol},
        **{name: getattr(row, name) for name in ("strategy", "alpha1", "alpha2", "budget", "semantics")},
        "column": name,
        "status": "missing" if cell is None else "partial" if result.is_partial(row, column) else "complete",
        **plain("n", "failed", "lost_images"),
        **shares(score="score", chance="chance"),
        **{"paper": paper, "minus_paper": against_paper},
        **shares(minus_full="difference"),
        **{end: in_percent(getattr(interval, end, None)) for end in ("low", "high")},
        "excludes_zero": None if interval is None else bool(interval.direction),
        "paired": (cell and cell.paired) or None,
        **shares(realised_budget="budget", kept_tokens="tokens"),
        **plain("kept_bytes"),
        **shares(changed_answers="changed"),
        **plain("first_change"),
        "command": experiment.command([row]) if cell is None else None,
    }
