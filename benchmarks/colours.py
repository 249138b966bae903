"""Tables in colour, on a terminal only: the text itself is never changed."""

from __future__ import annotations

import os
import re
from typing import TextIO

BOLD, DIM, RED, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[0m"
_FAILED = "failed"


def painted(table: str, stream: TextIO) -> str:
    """A table of `benchmarks.run_table` as it is to be written to a stream.

    Title, head and mean stand out, rule and chance step back, failures are red. Streams that are no terminal get the
    text as it is, and so does everybody with NO_COLOR (https://no-color.org) or TERM=dumb in the environment.

    Args:
        table: title, an empty line, head, rule, rows; notes after another empty line.
        stream: where it is written to.
    """
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return table
    lines = table.split("\n")
    rule = next((place for place, line in enumerate(lines) if line and set(line) == {"─"}), None)
    if rule is None:
        return table
    end = next((place for place in range(rule, len(lines)) if not lines[place]), len(lines))
    column = re.search(rf"\b{_FAILED}\b", lines[rule - 1])
    title = next(place for place, line in enumerate(lines) if line)
    for place, line in enumerate(lines):
        if place in (title, rule - 1):
            lines[place] = f"{BOLD}{line}{PLAIN}"
        elif place == rule or (rule < place < end and line.startswith("chance")):
            lines[place] = f"{DIM}{line}{PLAIN}"
        elif rule < place < end:
            lines[place] = _row(line, column.span() if column else None)
    return "\n".join(lines)


def _row(line: str, failed: tuple[int, int] | None) -> str:
    """A row with its failures in red; the mean's in bold."""
    weight = BOLD if line.startswith("mean") else ""
    if failed is not None:
        start, stop = failed
        count = line[start:stop].strip()
        if count not in ("", "0"):
            line = f"{line[:start]}{RED}{line[start:stop]}{PLAIN}{weight}{line[stop:]}"
    return f"{weight}{line}{PLAIN}" if weight else line
