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
from benchmarks.run_table import ABSENT, align, percent
from lookm.errors import LookmError

if TYPE_CHECKING:
    from benchmarks.tables.cells import Cell
    from benchmarks.tables.collection import Run

HEAD = ["n", "run %", "other %", "difference", "95 % from", "to", "", "changed %", "at token", "budget %", "other"]


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 for wrong input."""
    options = _parser().parse_args(arguments)
    try:
        if len(options.runs) % 2 or (len(options.runs) > 2 and not options.means):
            raise LookmError("give two run folders, or --means and several pairs of them")
        pairs = list(zip(options.runs[::2], options.runs[1::2], strict=True))
        rows = [row for run, other in pairs for row in compare(run, other, options)]
        title = ["", *HEAD] if options.means else ["task", *HEAD]
        print(align([title, *rows]))
    except LookmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compare(one: Path, other: Path, options: argparse.Namespace) -> list[list[str]]:
    """The lines of one pair: its tasks and their mean, or the mean only.

    Raises:
        LookmError: no such run, or runs of different samples.
    """
    from benchmarks.tables.cells import compute_cells, mean_column, task_columns
    from benchmarks.tables.collection import collect_runs, find_runs
    from benchmarks.tables.comparability import check_same_samples, common_samples

    runs = [run for folder in (one, other) for run in find_runs([folder])]
    if len(runs) != 2 or runs[0].name == runs[1].name:
        raise LookmError(f"{one} and {other} must be two run folders of different names")
    if not options.means:
        print(f"{one} and {other} differ in {_differences(*runs)}\n")
    table = collect_runs(runs)
    if options.common:
        table = common_samples(table)
    check_same_samples(table)
    infos = runs[0].benchmark.datasets if runs[0].benchmark else ()
    present = [info for info in infos if info.dataset in set(table.dataset)]
    if not present:
        raise LookmError(f"{one} has no samples of a dataset that its benchmark still has")
    columns = task_columns(list(dict.fromkeys(info.task for info in present)), infos, list(table.dataset), present)
    shown = [mean_column(columns)] if options.means else [*columns, mean_column(columns)]
    cells = compute_cells(table, shown, full=runs[0].name, protocol=options.protocol)
    return [
        _line(
            runs[1].name if options.means else column.name,
            cells.get((runs[0].name, column.name)),
            cells.get((runs[1].name, column.name)),
        )
        for column in shown
    ]


def _line(name: str, first: Cell | None, second: Cell | None) -> list[str]:
    if first is None or second is None or second.against_full is None:
        return [name, *[ABSENT] * len(HEAD)]
    found = second.against_full
    signed = [f"{100 * value + 0.0:+.1f}" for value in (found.difference, found.low, found.high)]
    mark = ("", "▲", "▼")[found.direction]
    scores = [percent(first.score), percent(second.score)]
    place = ABSENT if second.first_change is None else f"{second.first_change:g}"
    changes = [percent(second.changed), place]
    return [name, str(second.paired), *scores, *signed, mark, *changes, percent(first.budget), percent(second.budget)]


def _differences(one: Run, other: Run) -> str:
    """In what two runs' configurations differ, in words."""
    from benchmarks.tables.experiment import facts_of

    facts = [
        {**facts_of(run), **{f"strategy.{key}": value for key, value in run.configuration["strategy"].items()}}
        for run in (one, other)
    ]
    keys = [key for key in dict.fromkeys([*facts[0], *facts[1]]) if not key.startswith(("strategy._", "data."))]
    told = [
        f"{key} ({facts[0].get(key)}, {facts[1].get(key)})" for key in keys if facts[0].get(key) != facts[1].get(key)
    ]
    return "; ".join(told) or "nothing that decides answers"


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="lookm compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run folders, two by two")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="official", help="whose scores (official)")
    parser.add_argument("--means", action="store_true", help="one line for each pair: the mean over the tasks")
    parser.add_argument("--common", action="store_true", help="compare the samples that both have, and only those")
    return parser


if __name__ == "__main__":
    sys.exit(main())
