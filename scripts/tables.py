"""The paper's tables next to ours: paper, ours, difference, interval, budget, changed answers.

    python -m scripts.tables table1                        tiny model, MileBench-mini: no paper to compare with
    python -m scripts.tables table1 --model llava7b        the paper's LLaVA-1.5-7B on MileBench
    python -m scripts.tables table6 --model llava7b --format latex
    python -m scripts.tables table1 --compact              one line a strategy, the best in bold
    python -m scripts.tables table1 --by dataset           every dataset, strategies side by side
    python -m scripts.tables table1 --split images         MileBench's Few, Medium and Many images
    python -m scripts.tables matched --budget 0.05,0.1     every method at the same bytes, against LOOK-M and the best

Reads run folders only. Fill them with `lookm sweep +experiment=table1 model=…`; cells without a run are shown as
missing, with the command that fills them. Runs that differ in more than strategy and budget are refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.guard import guarded
from benchmarks.tables.experiment_arguments import add_arguments, read_arguments, read_conditions, read_equal_bytes
from lookm.errors import LookmError


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 for wrong input."""
    options = _parser().parse_args(arguments)
    table(options)
    return 0


def table(options: argparse.Namespace) -> None:
    """Prints the asked table in the asked format.

    Raises:
        LookmError: wrong input, or runs that must not stand in one table.
    """
    from benchmarks.tables.matched import matched_table, others_table
    from benchmarks.tables.reproduction import reproduce
    from benchmarks.tables.score_table import compact_table, dataset_table, full_table
    from benchmarks.tables.table import joined, show

    if options.table == "matched":
        if options.by or options.split or options.compact or options.overrides:
            raise LookmError(
                "matched has one form: leave out --compact, --by and --split; --where chooses runs, not --set"
            )
        part = read_equal_bytes(options)
        tables = [*(matched_table(part, budget) for budget in part.budgets), others_table()]
    else:
        experiment, runs = read_arguments(options.table, options)
        results = reproduce(
            experiment,
            runs,
            protocol=options.protocol,
            where=read_conditions(options.where),
            common=options.common,
            split=options.split,
            by_dataset=options.by == "dataset",
        )
        make = dataset_table if options.by == "dataset" else compact_table if options.compact else full_table
        tables = [make(result) for result in results]
    if options.format != "text":
        print(joined(tables, options.format))
        return
    for place, one in enumerate(tables):
        print("\n" * bool(place), end="\n" * bool(place))
        show(one, sys.stdout)


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    parser = argparse.ArgumentParser(
        prog="lookm table", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(
        parser,
        "table",
        "table1, table2, table3, table6 or matched; figure5 and figure6 give their numbers as a table",
    )
    parser.add_argument("--format", choices=["text", "markdown", "latex", "html", "csv"], default="text", help="(text)")
    parser.add_argument("--compact", action="store_true", help="one line a strategy, the best in bold")
    parser.add_argument("--by", choices=["dataset"], help="one line a dataset, one column a strategy")
    parser.add_argument(
        "--split",
        choices=["truncation", "images"],
        help="truncation: samples that lost images to the context limit, and the others; images: MileBench's Few, "
        "Medium and Many",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
