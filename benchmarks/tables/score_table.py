"""A table of the paper next to ours, as text, Markdown, LaTeX or CSV."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Callable, Sequence

from benchmarks.tables.cells import Cell, Column
from benchmarks.tables.experiment import Row
from benchmarks.tables.filled import ALL, Reproduction
from benchmarks.tables.intervals import LEVEL, RESAMPLES

MISSING = "–"
UP, DOWN, PARTIAL = "▲", "▼", "°"

Line = tuple[str, str, list[str]]
"""A line of the table: the strategy (empty but for the first line of a strategy), what it says, one cell per column."""


def as_text(result: Reproduction) -> str:
    """Aligned columns, with the title above and the notes below."""
    head, *blocks = _blocks(result)
    lines = [line for block in (head, *blocks) for line in block]
    names = max(len(line[0]) for line in lines)
    kinds = max(len(line[1]) for line in lines)
    widths = [max(len(line[2][place]) for line in lines) for place in range(len(result.columns))]

    def drawn(line: Line) -> str:
        cells = [_marked(cell).rjust(width + 1) for cell, width in zip(line[2], widths, strict=True)]
        return "  ".join([line[0].ljust(names), line[1].ljust(kinds), *cells]).rstrip()

    above, *bodies = ["\n".join(map(drawn, block)) for block in (head, *blocks)]
    rule = "─" * max(len(drawn(line)) for line in lines)
    below = [part for note in notes(result) for part in _wrapped(note)]
    return "\n".join([title(result), "", above, rule, "\n\n".join(bodies), "", *below])


def as_markdown(result: Reproduction) -> str:
    """A table for GitHub and the like."""
    head, *blocks = _blocks(result)
    rows = [["strategy", "", *head[0][2]], ["---", "---", *["---:"] * len(result.columns)]]
    lines = [*head[1:], *(line for block in blocks for line in block)]
    rows += [[f"**{name}**" if name else "", kind, *cells] for name, kind, cells in lines]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    listed = "\n".join(f"- {note}" for note in notes(result))
    return f"**{title(result)}**\n\n{table}\n\n{listed}"


def as_latex(result: Reproduction) -> str:
    """A tabular for the booktabs package; notes as comments."""
    head, *blocks = _blocks(result)
    out = [f"% {title(result)}", *(f"% {note}" for note in notes(result))]
    out += [r"\begin{tabular}{ll" + "r" * len(result.columns) + "}"]
    for rule, block in zip([r"\toprule", *[r"\midrule"] * len(blocks)], [head, *blocks], strict=True):
        out += [rule, *(_latex_row([name, kind, *cells]) for name, kind, cells in block)]
    return "\n".join([*out, r"\bottomrule", r"\end{tabular}"])


def as_csv(results: Sequence[Reproduction]) -> str:
    """One line per cell, missing ones included; scores and shares in %, everything unrounded to four decimals."""
    head = ["experiment", "model", "benchmark", "samples", "protocol", "strategy", "alpha1", "alpha2", "semantics"]
    head += ["column", "status", "n", "failed", "score", "paper", "minus_paper", "minus_full", "low", "high"]
    head += ["excludes_zero", "paired", "realised_budget", "changed_answers", "first_change", "command"]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(head)
    for result in results:
        for row in result.experiment.rows:
            for column in result.columns:
                writer.writerow(_csv_line(result, row, column))
    return stream.getvalue().rstrip("\n")


def title(result: Reproduction) -> str:
    """What the table is of, whose scores it has, and of which samples."""
    experiment, paper = result.experiment, result.paper
    budgets = {(row.alpha1, row.alpha2) for row in experiment.rows if row.alpha1 is not None}
    semantics = {row.semantics for row in experiment.rows if row.semantics is not None}
    parts = [paper.title if paper else experiment.name, result.label]
    parts += [f"α {recent:g} + {important:g}" for recent, important in budgets if len(budgets) == 1]
    parts += [f"{result.protocol} protocol", *(f"semantics {name}" for name in sorted(semantics)), "scores in %"]
    return " · ".join([*parts, *([result.samples] if result.samples != ALL else [])])


def notes(result: Reproduction) -> list[str]:
    """The sentences below the table: what the marks mean, what is missing and the command that fills it."""
    compared = sum(cell.against_full is not None for cell in result.cells.values())
    out = []
    if compared:
        out.append(
            f"{UP} {DOWN}: the {LEVEL:.0%} interval of the difference from the full cache lies above or below zero "
            f"(paired bootstrap within each dataset, {RESAMPLES:,} resamples, seed 0). Of {compared} such intervals "
            f"about {compared * (1 - LEVEL):.0f} would by chance alone."
        )
        out.append(
            "changed: answers that differ from the full cache's at all; at token: the median place of the first token "
            "that does. The first token of an answer comes from the prefill, before anything is compressed."
        )
    partial = [column.name for column in result.columns if result.samples == ALL and result.partial(column)]
    if partial:
        out.append(f"{PARTIAL}: not all samples or datasets: {', '.join(partial)}.")
    if result.paper_scores and result.protocol != "official":
        out.append("The paper's numbers are of the official protocol; no difference from them is shown.")
    out += result.notes
    missing = result.missing_rows
    if missing and result.samples == ALL:
        names = ", ".join(_name(result, row) for row in missing)
        which = f"missing for {names}" if len(missing) < len(result.experiment.rows) else "no run has this yet"
        out.append(f"{MISSING}: {which}. To fill it: {result.experiment.command(missing)}")
    return out


def _blocks(result: Reproduction) -> list[list[Line]]:
    """The head's lines, then the lines of each row."""
    columns = result.columns
    names = [f"{column.name}{PARTIAL}" if _is_partial(result, column) else column.name for column in columns]
    sizes = [[cell.n for (_, name), cell in result.cells.items() if name == column.name] for column in columns]
    head: list[Line] = [("", "", names), ("", "n", [str(max(found)) if found else MISSING for found in sizes])]
    if any(column.chance is not None for column in columns):
        levels = [MISSING if column.chance is None else f"{100 * column.chance:.1f}" for column in columns]
        head.append(("", "chance", levels))
    return [head, *(_block(result, row) for row in result.experiment.rows)]


def _block(result: Reproduction, row: Row) -> list[Line]:
    """The lines of one strategy at one budget."""
    cells = [result.cells.get((row, column.name)) for column in result.columns]
    lines: list[Line] = [(_name(result, row), "ours", [_score(cell) for cell in cells])]

    def add(kind: str, text: Callable[[Cell], str | None]) -> None:
        lines.append(("", kind, [(None if cell is None else text(cell)) or MISSING for cell in cells]))

    if result.paper_scores:
        paper = [result.paper_scores.get((row, column.name)) for column in result.columns]
        lines.append(("", "paper", [MISSING if value is None else f"{value:.1f}" for value in paper]))
        if result.protocol == "official":
            pairs = zip(cells, paper, strict=True)
            both = [None if cell is None or value is None else 100 * cell.score - value for cell, value in pairs]
            lines.append(("", "ours − paper", [_signed(value) for value in both]))
    if not row.is_full and any(cells):
        against = [cell.against_full if cell else None for cell in cells]
        if any(against):
            lines.append(("", "ours − full", [_signed(100 * d.difference if d else None) for d in against]))
            lines.append(("", "95 % from", [_signed(100 * d.low if d else None) for d in against]))
            lines.append(("", "95 % to", [_signed(100 * d.high if d else None) for d in against]))
            add("changed %", lambda cell: None if cell.changed is None else f"{100 * cell.changed:.1f}")
            add("at token", lambda cell: None if cell.first_change is None else f"{cell.first_change:g}")
        add("budget %", lambda cell: None if cell.budget is None else f"{100 * cell.budget:.1f}")
    return lines


def _score(cell: Cell | None) -> str:
    if cell is None:
        return MISSING
    direction = cell.against_full.direction if cell.against_full else 0
    return f"{100 * cell.score:.1f}{('', UP, DOWN)[direction]}"


def _signed(value: float | None) -> str:
    if value is None:
        return MISSING
    rounded = round(value, 1) + 0.0  # no negative zero
    return f"{rounded:+.1f}".replace("-", "−") if rounded else "0.0"


def _name(result: Reproduction, row: Row) -> str:
    several = len({(other.alpha1, other.alpha2) for other in result.experiment.rows if not other.is_full}) > 1
    return f"{row.strategy} {row.alpha1:g}+{row.alpha2:g}" if several and row.alpha1 is not None else row.strategy


def _is_partial(result: Reproduction, column: Column) -> bool:
    return result.samples == ALL and result.partial(column)


def _wrapped(note: str) -> list[str]:
    """A note in lines of a terminal's width; a command stays in one."""
    text, marker, command = note.partition(": python ")
    lines = textwrap.wrap(text + marker[:1], width=110)
    return [*lines, f"  python {command}"] if marker else lines


def _marked(cell: str) -> str:
    """The cell with its mark, or a space in its place, so that digits stand below digits."""
    return cell if cell[-1:] in (UP, DOWN, PARTIAL) else f"{cell} "


_LATEX = {
    "%": r"\%",
    "_": r"\_",
    "−": "$-$",
    "–": "--",
    "°": r"$^\circ$",
    "▲": r"$^\uparrow$",
    "▼": r"$^\downarrow$",
    "α": r"$\alpha$",
}


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join("".join(_LATEX.get(letter, letter) for letter in cell) for cell in cells) + r" \\"


def _csv_line(result: Reproduction, row: Row, column: Column) -> list[str]:
    experiment = result.experiment
    cell, paper = result.cells.get((row, column.name)), result.paper_scores.get((row, column.name))
    fixed = [experiment.name, experiment.model, experiment.benchmark.name, result.samples, result.protocol]
    fixed += [row.strategy, _number(row.alpha1), _number(row.alpha2), row.semantics or "", column.name]
    if cell is None:
        return [*fixed, "missing", "", "", "", _number(paper), *[""] * 9, experiment.command([row])]
    against = cell.against_full
    minus_paper = None if paper is None or result.protocol != "official" else 100 * cell.score - paper
    return [
        *fixed,
        "partial" if result.partial(column) else "complete",
        *(str(cell.n), str(cell.failed), _number(100 * cell.score), _number(paper), _number(minus_paper)),
        *(_number(100 * value) for value in ((against.difference, against.low, against.high) if against else ())),
        *([""] * 3 if against is None else []),
        "" if against is None else str(bool(against.direction)).lower(),
        *(str(cell.paired) if against else "", _number(_percent(cell.budget)), _number(_percent(cell.changed))),
        *(_number(cell.first_change), ""),
    ]


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _number(value: float | None) -> str:
    return "" if value is None else f"{round(value, 4) + 0.0:g}"
