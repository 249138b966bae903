"""What would it cost? `python -m scripts.plan +experiment=table1 model=llava7b` tells before anything is spent."""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchmarks.guard import guarded
from benchmarks.planning import GPUS
from lookm.errors import LookmError

if TYPE_CHECKING:
    from benchmarks.planning import PlannedRun

# Threads that wait by spinning make small models a hundred times slower when another program wants a core too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status, 2 for wrong input."""
    options = _parser().parse_intermixed_args(arguments)
    print("\n".join(plan(options)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lookm plan",
        description="Print the jobs of a command of run.py, the samples already done, an estimate of time and memory, "
        "and the smallest subset that resolves a difference. Computes a few batches at most, and writes no results.",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="as for run.py -m, such as +experiment=table1"
    )
    parser.add_argument(
        "--gpu", choices=sorted(GPUS), help="estimate for this GPU from the model's architecture, measure nothing"
    )
    parser.add_argument("--batches", type=int, default=3, metavar="N", help="batches to measure (3)")
    parser.add_argument(
        "--difference",
        type=float,
        default=2.0,
        metavar="POINTS",
        help="difference to be resolved, in points of 100 (2)",
    )
    parser.add_argument("--power", type=float, default=0.8, help="probability of finding it (0.8)")
    return parser


def plan(options: argparse.Namespace) -> list[str]:
    """The lines to print.

    Raises:
        LookmError: wrong overrides or options.
    """
    from benchmarks.composition import compose_jobs
    from benchmarks.planning import DEFAULT_GPU, groups, needs_gpu, planned_runs

    if not 0 < options.difference <= 100:
        raise LookmError(f"--difference is {options.difference:g}; it must be above 0 and at most 100 points")
    if not 0 < options.power < 1:
        raise LookmError(f"--power is {options.power:g}; it must be between 0 and 1")
    if options.batches < 1:
        raise LookmError(f"--batches is {options.batches}; it must be at least 1")
    overrides, gpu = list(options.overrides), options.gpu
    settings, notes = compose_jobs(overrides), []
    if gpu is None and any(needs_gpu(one) for one in settings):
        gpu = DEFAULT_GPU
        notes.append(f"there is no GPU here that could be measured; --gpu chooses one of {', '.join(sorted(GPUS))}")
    if gpu is not None and not any(word.startswith("dtype=") for word in overrides):
        settings = compose_jobs([*overrides, "dtype=bfloat16"])  # what a GPU computes in, and a part of runs' names
    runs, unknown = planned_runs(settings)
    costs = [line for group in groups(runs) for line in _costs(group, gpu, options.batches)]
    lines = [f"{len(settings)} jobs, {len(runs)} runs", "", *_table(runs), ""]
    lines += [*(costs or ["nothing is left to compute"]), *(f"note: {line}" for line in (*unknown, *notes))]
    return [*lines, "", *_subset(runs, options)]


def _table(runs: Sequence[PlannedRun]) -> list[str]:
    from benchmarks.tables.table import Row, Table, as_text

    rows = [Row((run.settings.run, *map(str, (run.selected, run.done, run.left)))) for run in runs]
    totals = [sum(column) for column in zip(*((run.selected, run.done, run.left) for run in runs), strict=True)]
    rows.append(Row(("all", *map(str, totals)), "foot"))
    return as_text(Table("", ("run", "samples", "done", "left"), tuple(rows))).splitlines()


def _costs(runs: Sequence[PlannedRun], gpu: str | None, batches: int) -> list[str]:
    """What the runs of one group cost."""
    from benchmarks.planning import estimate, measure
    from benchmarks.tables.table import size

    cost = measure(runs, batches=batches) if gpu is None else estimate(runs, GPUS[gpu])
    where = "GPU" if gpu or runs[0].settings.device.startswith("cuda") else "CPU"
    return [
        f"{len(runs)} runs computed together (lookm sweep …): {_time(cost.together)} of {where} time",
        f"each in a job of its own (hydra/launcher=…): {_time(cost.apart)} in all",
        f"memory at its peak: {size(cost.memory)}",
        *(f"  {line}" for line in cost.basis),
    ]


def _time(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _subset(runs: Sequence[PlannedRun], options: argparse.Namespace) -> list[str]:
    """The smallest subset that resolves the asked difference, as an override of run.py."""
    from benchmarks.planning import DISAGREEMENT, paired_differences, resolve

    samples, variance, pairs = resolve(options.difference / 100, paired_differences(runs), power=options.power)
    rests = f"variance of a paired difference: {variance:.3f}, " + (
        f"from {pairs} pairs with the full cache that are there already"
        if pairs
        else f"assuming that two strategies score differently on {DISAGREEMENT:.0%} of the samples"
    )
    datasets = len(runs[0].settings.datasets)
    limit = math.ceil(samples / datasets)
    per_run = max(run.selected for run in runs)
    ending = (
        f"; the {per_run} selected ones are too few"
        if samples > per_run
        else f": limit={limit} subset=random takes {limit} of each of the {datasets} datasets"
    )
    return [
        f"to find a difference of {options.difference:g} points between two strategies (paired, two-sided 5 %, power "
        f"{options.power:.0%}): {samples} samples{ending}",
        f"  {rests}",
    ]


if __name__ == "__main__":
    sys.exit(main())
