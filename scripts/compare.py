"""Any run against any other, sample by sample: scores, their difference with its interval, changed answers.

    python -m scripts.compare RUN OTHER                         every task, and their mean
    python -m scripts.compare --means RUN OTHER RUN OTHER …     one line for each pair

RUN and OTHER are run folders of the same samples; they may differ in anything else, such as in semantics or in the text
prior, and the first lines say in what. The interval is of OTHER minus RUN (paired bootstrap within each dataset).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.guard import guarded
from benchmarks.milebench import PROTOCOLS
from lookm.errors import LookmError

if TYPE_CHECKING:
    from benchmarks.evaluation.store import RunFolder
    from benchmarks.tables.cells import Cell
    from benchmarks.tables.table import Row, Table

HEAD = ("n", "run %", "other %", "difference", "95 % from", "to", "changed %", "at token", "run kept %", "other kept %")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 for wrong input."""
    options = _parser().parse_args(arguments)
    from benchmarks.tables.table import joined, show

    table = compare(options)
    if options.format == "text":
        show(table, sys.stdout)
    else:
        print(joined([table], options.format))
    return 0


def compare(options: argparse.Namespace) -> Table:
    """The comparison of one pair, task by task, or of several pairs by their means.

    Raises:
        LookmError: no such run, or runs of different samples or datasets.
    """
    from benchmarks.tables.cells import FEWEST_PAIRS
    from benchmarks.tables.table import Table

    if len(options.runs) % 2 or (len(options.runs) > 2 and not options.means):
        raise LookmError("give two run folders, or --means and several pairs of them")
    pairs = [_pair(one, other) for one, other in zip(options.runs[::2], options.runs[1::2], strict=True)]
    rows = [row for pair in pairs for row in _rows(*pair, options)]
    first, second = pairs[0]
    title = "" if options.means else f"{first.name} and {second.name} differ in {_differences(first, second)}"
    note = f"▲ ▼: the interval lies above or below zero; none with fewer than {FEWEST_PAIRS} pairs in a dataset."
    head = ("other" if options.means else "task", *HEAD)
    return Table(title, head, tuple(rows), (f"{options.protocol} protocol. {note}",))


def _pair(one: Path, other: Path) -> tuple[RunFolder, RunFolder]:
    from benchmarks.evaluation.store import find_runs

    runs = [run for folder in (one, other) for run in find_runs([folder])]
    if len(runs) != 2 or runs[0].name == runs[1].name:
        raise LookmError(f"{one} and {other} must be two run folders of different names")
    return runs[0], runs[1]


def _rows(one: RunFolder, other: RunFolder, options: argparse.Namespace) -> list[Row]:
    """The lines of one pair: its tasks and their mean, or the mean only."""
    from benchmarks.evaluation.cells import benchmark_columns
    from benchmarks.evaluation.comparable import check_same_samples, common_samples
    from benchmarks.tables.cells import Runs
    from benchmarks.tables.frame import known_datasets, read_frame

    frame = read_frame([one, other])
    if options.common:
        frame = common_samples(frame, datasets=True)
    for dataset, names in frame.groupby("dataset", sort=False).run.unique().items():
        if len(names) == 1:
            raise LookmError(
                f"only {names[0]} has samples of {dataset}; complete the other run, or add --common to compare the "
                "datasets that both have"
            )
    if frame.empty:
        raise LookmError(f"{one.name} and {other.name} have no sample in common")
    check_same_samples(frame)
    columns = benchmark_columns(known_datasets([one, other]), set(frame.dataset), paper=False)
    cells = Runs(frame, options.protocol).cells(columns, one.name)
    shown = columns[-1:] if options.means else columns
    return [
        _row(
            other.name if options.means else column.name,
            cells.get((one.name, column.name)),
            cells.get((other.name, column.name)),
            is_mean=len(column.infos) > 1 and column is columns[-1] and not options.means,
        )
        for column in shown
    ]


def _row(name: str, first: Cell | None, second: Cell | None, *, is_mean: bool) -> Row:
    from benchmarks.tables.cells import printed_difference
    from benchmarks.tables.table import ABSENT, Row, Text, percent, signed

    if first is None or second is None or second.difference is None:
        return Row((name, *[ABSENT] * len(HEAD)))
    interval = second.interval
    mark, style = ("", "▲", "▼")[second.direction], ("", "up", "down")[second.direction]
    points = signed(printed_difference(second.score, first.score, second.difference))
    ends = [signed(100 * value, end=True) for value in (interval.low, interval.high)] if interval else [ABSENT, ABSENT]
    place = ABSENT if second.first_change is None else f"{second.first_change:g}"
    kept = [percent(first.budget), percent(second.budget)]
    scores = [percent(first.score), percent(second.score)]
    changed = [percent(second.changed), place]
    cells: list[str | Text] = [name, str(second.paired), *scores, Text(points, mark, style), *ends, *changed, *kept]
    return Row(tuple(cells), "foot" if is_mean else "")


def _differences(one: RunFolder, other: RunFolder) -> str:
    """In what two runs' configurations differ, in words."""
    from benchmarks.evaluation.comparable import as_text, facts_of, flattened

    facts = [
        {**facts_of(run.about), **dict(flattened({"strategy": run.configuration["strategy"]}))} for run in (one, other)
    ]
    keys = [
        key for key in dict.fromkeys([*facts[0], *facts[1]]) if not key.startswith(("strategy._", "data.", "semantics"))
    ]
    pairs = [(key, facts[0].get(key), facts[1].get(key)) for key in keys]
    listed = [f"{key} ({as_text(left)}, {as_text(right)})" for key, left, right in pairs if left != right]
    return "; ".join(listed) or "nothing that decides answers"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, two by two")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="official", help="whose scores (official)")
    parser.add_argument("--means", action="store_true", help="one line for each pair: the mean over the tasks")
    parser.add_argument("--common", action="store_true", help="compare the samples that both have, and only those")
    parser.add_argument("--format", choices=["text", "markdown", "latex", "html", "csv"], default="text", help="(text)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
