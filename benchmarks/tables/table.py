"""One table, shown on a terminal, as plain text, Markdown, LaTeX, HTML or CSV."""

from __future__ import annotations

import csv
import io
import os
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TextIO

ABSENT = "–"


@dataclass(frozen=True)
class Text:
    """A cell that stands out.

    Attributes:
        text: what it says; mark: characters behind it, for which other cells of the column leave room.
        style: "up", "down", "best", "bad" or "" for none.
    """

    text: str
    mark: str = ""
    style: str = ""


@dataclass(frozen=True)
class Row:
    """One line: its cells, whether it is in the "foot" or "dim" or an ordinary one, and whether a block begins."""

    cells: tuple[str | Text, ...]
    style: str = ""
    begins_block: bool = False


@dataclass(frozen=True)
class Table:
    """A table with what stands above and below it.

    Attributes:
        title: what it is of; empty for none.
        text_columns: how many columns, from the first, hold text and not numbers.
        records: its numbers unrounded, a mapping for each cell; what CSV holds instead of the lines where it is given.
    """

    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    text_columns: int = 1
    records: tuple[Mapping[str, Any], ...] = ()


def percent(share: float | None) -> str:
    """A share in [0, 1] as a percentage with one decimal."""
    return ABSENT if share is None or share != share else f"{100 * share + 0.0:.1f}"


def in_percent(share: float | None) -> float | None:
    """A share in [0, 1] as a percentage, unrounded."""
    return None if share is None else 100 * share


def signed(points: float | None, *, end: bool = False) -> str:
    """A difference in points with its sign and one decimal; zero has none.

    Args:
        end: it is an interval's end, whose sign is shown even where it rounds to zero: it says which side it is on.
    """
    if points is None:
        return ABSENT
    zero = abs(points) < 1e-9 if end else not round(points, 1)
    return "0.0" if zero else f"{points:+.1f}".replace("-", "−")


def size(n_bytes: float | None) -> str:
    """Bytes in the binary unit that keeps the number short."""
    if n_bytes is None:
        return ABSENT
    for unit in ("B", "KiB", "MiB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.2f} GiB"


def text_of(cell: str | Text) -> str:
    """What a cell says, its mark included."""
    return cell if isinstance(cell, str) else cell.text + cell.mark


def _mark(cell: str | Text) -> str:
    return cell.mark if isinstance(cell, Text) else ""


def _aligned(table: Table) -> list[list[str]]:
    """The head's and all rows' texts, those of a column of one width: text to the left, numbers to the right.

    Numbers without a mark have room beside them, so that digits stand below digits.
    """
    rows = [table.head, *(row.cells for row in table.rows)]
    columns = []
    for place, cells in enumerate(zip(*rows, strict=True)):
        is_text = place < table.text_columns
        room = 0 if is_text else max(len(_mark(cell)) for cell in cells)
        texts = [text_of(cell) + " " * (room - len(_mark(cell))) for cell in cells]
        width = max(map(len, texts))
        columns.append([text.ljust(width) if is_text else text.rjust(width) for text in texts])
    return [list(row) for row in zip(*columns, strict=True)]


def as_text(table: Table) -> str:
    """Aligned columns, a rule below the head."""
    head, *lines = ["  ".join(row).rstrip() for row in _aligned(table)]
    body = [f"\n{line}" if row.begins_block else line for row, line in zip(table.rows, lines, strict=True)]
    rule = "─" * max(map(len, [head, *lines]))
    return "\n".join([*([table.title, ""] if table.title else []), head, rule, *body, *_below(table)])


def show(table: Table, stream: TextIO) -> None:
    """Writes a table to a stream, with colours and weights on a terminal.

    Streams that are no terminal get plain text, and so does everybody with NO_COLOR (https://no-color.org) or TERM=dumb
    in the environment.
    """
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        print(as_text(table), file=stream, flush=True)
        return
    from rich import box
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table as RichTable
    from rich.text import Text as RichText

    styles = {"up": "green", "down": "red", "bad": "bold red", "best": "bold", "foot": "bold", "dim": "dim"}
    drawn = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style="bold", padding=(0, 1))
    head, *lines = _aligned(table)
    for name in head:
        drawn.add_column(RichText(name), no_wrap=True)
    for place, (row, texts) in enumerate(zip(table.rows, lines, strict=True)):
        cells = [
            RichText(text, styles.get(cell.style, "") if isinstance(cell, Text) else "")
            for text, cell in zip(texts, row.cells, strict=True)
        ]
        ends_block = place + 1 < len(table.rows) and table.rows[place + 1].begins_block
        drawn.add_row(*cells, style=styles.get(row.style), end_section=ends_block)
    console = Console(file=stream, highlight=False)
    console.width = max(console.width, Measurement.get(console, console.options.update(width=10_000), drawn).maximum)
    if table.title:
        console.print(RichText(table.title, "bold"), soft_wrap=True)
        console.print()
    console.print(drawn)
    console.print(RichText("\n".join(_below(table))), soft_wrap=True)
    stream.flush()


def as_markdown(table: Table) -> str:
    """A table for GitHub and the like."""
    rows = [table.head, ["---" if place < table.text_columns else "---:" for place in range(len(table.head))]]
    rows += [[_markdown(cell) for cell in row.cells] for row in table.rows]
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    notes = "\n".join(f"- {note}" for note in table.notes)
    return "\n\n".join(part for part in (f"**{table.title}**" if table.title else "", lines, notes) if part)


def as_latex(table: Table) -> str:
    """A tabular for the booktabs package; title and notes as comments."""
    aligned = "l" * table.text_columns + "r" * (len(table.head) - table.text_columns)
    lines = [f"% {text}" for text in (table.title, *table.notes) if text]
    lines += [rf"\begin{{tabular}}{{{aligned}}}", r"\toprule", _latex_row(table.head), r"\midrule"]
    for place, row in enumerate(table.rows):
        lines += [r"\midrule"] if row.begins_block and place else []
        lines.append(_latex_row(row.cells))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def as_html(table: Table) -> str:
    """A `table` element; cells have their style as class."""

    def cell(tag: str, content: str | Text, place: int) -> str:
        style = content.style if isinstance(content, Text) else ""
        names = " ".join(name for name in ("text" if place < table.text_columns else "", style) if name)
        return f"<{tag}{f' class={chr(34)}{names}{chr(34)}' if names else ''}>{escape(text_of(content))}</{tag}>"

    head = "".join(cell("th", name, place) for place, name in enumerate(table.head))
    rows = [
        f"<tr{f' class={chr(34)}{row.style}{chr(34)}' if row.style else ''}>"
        + "".join(cell("td", content, place) for place, content in enumerate(row.cells))
        + "</tr>"
        for row in table.rows
    ]
    caption = f"<caption>{escape(table.title)}</caption>\n" if table.title else ""
    notes = "".join(f"\n<p>{escape(note)}</p>" for note in table.notes)
    body = "\n".join(rows)
    return f"<table>\n{caption}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>{notes}"


def as_csv(table: Table) -> str:
    """The records where there are some, else the lines as they are shown."""
    stream = io.StringIO()
    if table.records:
        writer = csv.DictWriter(stream, list(table.records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _number(value) for key, value in record.items()} for record in table.records)
    else:
        rows = [table.head, *([text_of(cell) for cell in row.cells] for row in table.rows)]
        csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().rstrip("\n")


FORMATS: dict[str, Callable[[Table], str]] = {
    "text": as_text,
    "markdown": as_markdown,
    "latex": as_latex,
    "html": as_html,
    "csv": as_csv,
}
"""How a table may be written, by name."""


def joined(tables: Sequence[Table], name: str) -> str:
    """Several tables in one format; as CSV their records are one table."""
    if name == "csv" and tables[0].records:
        return as_csv(Table("", (), (), records=tuple(record for table in tables for record in table.records)))
    return "\n\n\n".join(map(FORMATS[name], tables))


def _below(table: Table) -> list[str]:
    """The notes in lines of a terminal's width; commands and folders stay in one line."""
    lines: list[str] = [""] if table.notes else []
    for note in table.notes:
        text, marker, command = note.partition(": lookm ")
        whole = re.match(r"(Results|Folder): ", note)
        lines += [note] if whole else textwrap.wrap(text + marker[:1], width=118, break_long_words=False)
        lines += [f"  lookm {command}"] if marker else []
    return lines


def _markdown(cell: str | Text) -> str:
    text = text_of(cell).replace("|", r"\|")
    return f"**{text}**" if isinstance(cell, Text) and cell.style == "best" else text


_LATEX = {
    **{letter: rf"\{letter}" for letter in "%_&#$"},
    "−": "$-$",
    "–": "--",
    "°": r"$^\circ$",
    "▲": r"$^\uparrow$",
    "▼": r"$^\downarrow$",
    "α": r"$\alpha$",
}


def _latex_row(cells: Sequence[str | Text]) -> str:
    def written(cell: str | Text) -> str:
        text = "".join(_LATEX.get(letter, letter) for letter in text_of(cell))
        return rf"\textbf{{{text}}}" if isinstance(cell, Text) and cell.style == "best" and text else text

    return " & ".join(map(written, cells)) + r" \\"


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{round(value, 4) + 0.0:g}" if isinstance(value, float) else str(value)
