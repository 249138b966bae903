"""The arguments that `scripts.tables` and `scripts.figures` share: which experiment, of which runs."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.milebench import PROTOCOLS
from lookm.errors import LookmError

if TYPE_CHECKING:
    from benchmarks.evaluation.store import RunFolder
    from benchmarks.tables.experiments import Experiment
    from benchmarks.tables.matched import EqualBytes

RESULTS = Path("results/runs")
TINY = ("tiny", "tiny_qwen")  # the models that MileBench-mini was made for


def add_arguments(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Adds them to a parser; the positional one is called `name` and explained by `text`."""
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


def read_arguments(name: str, options: argparse.Namespace) -> tuple[Experiment, list[RunFolder]]:
    """The experiment that was asked for, and all runs to look for its rows in.

    Raises:
        LookmError: no such experiment, model or folder.
    """
    from benchmarks.evaluation.store import find_runs
    from benchmarks.tables.experiments import read_experiment

    benchmark = _benchmark(options)
    overrides = [] if options.model == "tiny" else [f"model={options.model}"]
    overrides += [] if benchmark == "mini" else [f"benchmark={benchmark}"]
    overrides += [] if options.semantics == "paper" else [f"semantics={options.semantics}"]
    if options.results:
        first = options.results[0]
        overrides.append(f"results_dir={quoted(str(first.parent if (first / 'run.json').is_file() else first))}")
    experiment = read_experiment(name, [*overrides, *options.overrides])
    if options.results is None and not RESULTS.is_dir():
        return experiment, []
    return experiment, find_runs(options.results or RESULTS)


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
