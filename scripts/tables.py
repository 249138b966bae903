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
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.guard import guarded
from benchmarks.milebench import PROTOCOLS
from lookm.errors import LookmError

if TYPE_CHECKING:
    from benchmarks.tables.matched import EqualBytes
    from benchmarks.tables.reproduction import Reproduction

RESULTS = Path("results/runs")
TINY = ("tiny", "tiny_qwen")  # the models that MileBench-mini was made for


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
        results = read_results(options.table, options, split=options.split, by_dataset=options.by == "dataset")
        make = dataset_table if options.by == "dataset" else compact_table if options.compact else full_table
        tables = [make(result) for result in results]
    if options.format != "text":
        print(joined(tables, options.format))
        return
    for place, one in enumerate(tables):
        print("\n" * bool(place), end="\n" * bool(place))
        show(one, sys.stdout)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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


def add_arguments(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Adds what `lookm table` and `lookm figure` share: a positional `name`, explained by `text`, and of which runs."""
    parser.add_argument(name, help=text)
    parser.add_argument("--model", default="tiny", help="a file of configs/model (tiny)")
    parser.add_argument("--benchmark", help="a file of configs/benchmark (mini for the tiny models, else milebench)")
    parser.add_argument("--semantics", default="paper", help="paper or release (paper)")
    parser.add_argument("--protocol", choices=PROTOCOLS, default="official", help="whose scores (official)")
    parser.add_argument(
        "--results", type=Path, nargs="+", metavar="DIR", help=f"results folders or run folders ({RESULTS})"
    )
    parser.add_argument(
        "--where",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with this, such as dtype=float32 or model.max_context_len=2000",
    )
    parser.add_argument("--common", action="store_true", help="compare the samples that all runs have, and only those")
    parser.add_argument(
        "--budget", metavar="B,…", help="of matched, pareto and asked: these budgets (all that there are)"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        dest="overrides",
        metavar="KEY=VALUE",
        help="more keys as for run.py: alpha1=0.05",
    )


def read_results(name: str, options: argparse.Namespace, **form: Any) -> list[Reproduction]:
    """The experiment that was asked for, filled with the runs there are; `form` as of `reproduce`.

    Raises:
        LookmError: no such experiment, model or folder, or runs that must not stand in one table.
    """
    from benchmarks.evaluation.store import find_runs
    from benchmarks.tables.experiments import read_experiment
    from benchmarks.tables.reproduction import reproduce

    benchmark = _benchmark(options)
    overrides = [] if options.model == "tiny" else [f"model={options.model}"]
    overrides += [] if benchmark == "mini" else [f"benchmark={benchmark}"]
    overrides += [] if options.semantics == "paper" else [f"semantics={options.semantics}"]
    if options.results:
        first = options.results[0]
        overrides.append(f"results_dir={quoted(str(first.parent if (first / 'run.json').is_file() else first))}")
    experiment = read_experiment(name, [*overrides, *options.overrides])
    runs = find_runs(options.results or RESULTS) if options.results or RESULTS.is_dir() else []
    shared = {"protocol": options.protocol, "where": read_conditions(options.where), "common": options.common}
    return reproduce(experiment, runs, **shared, **form)


def read_equal_bytes(options: argparse.Namespace, **where: str) -> EqualBytes:
    """The runs with a `budget=` that were asked for, and of which `where` is true, too.

    Raises:
        LookmError: a wrong budget, no such runs, or runs that must not stand in one table.
    """
    from benchmarks.evaluation.store import find_runs
    from benchmarks.tables.matched import equal_bytes
    from lookm.budgets import split_budget

    try:
        given = [float(text) for text in options.budget.split(",")] if options.budget else []
    except ValueError:
        raise LookmError(f"--budget {options.budget} is no list of numbers; give it as --budget 0.05,0.1") from None
    return equal_bytes(
        find_runs(options.results or RESULTS),
        options.model,
        _benchmark(options),
        budgets=[split_budget(budget, 0.1, 0.1)[0] for budget in given],
        semantics=options.semantics,
        protocol=options.protocol,
        where=read_conditions(options.where) | where,
        common=options.common,
    )


def _benchmark(options: argparse.Namespace) -> str:
    return str(options.benchmark or ("mini" if options.model in TINY else "milebench"))


def read_conditions(pairs: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` arguments as a mapping.

    Raises:
        LookmError: an argument without `=`.
    """
    for pair in pairs:
        if "=" not in pair:
            raise LookmError(f"--where takes KEY=VALUE, such as dtype=float32, not {pair!r}")
    return dict(pair.split("=", 1) for pair in pairs)


def quoted(value: str) -> str:
    """A value as Hydra takes it on a command line, whatever letters are in it."""
    if re.fullmatch(r"[\w./-]+", value):
        return value
    escaped = value.replace("\\", r"\\").replace("'", r"\'")
    return f"'{escaped}'"


if __name__ == "__main__":
    sys.exit(main())
