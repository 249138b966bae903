"""Every strategy on one model and benchmark, from one prefill of each prompt, best mean first; or any runs as a page.

    python -m scripts.leaderboard                                    # tiny model, MileBench-mini
    python -m scripts.leaderboard model=llava7b task=NH limit=20
    python -m scripts.leaderboard --output leaderboard.txt --page leaderboard.html
    python -m scripts.leaderboard results/runs                       # computes nothing: all these runs on one page

Runs what is missing of `run.py -m strategy=…` and reads the run folders. The table has the mean over all tasks, some
tasks, the bytes that were really kept over the full cache's, and the share of answers unlike the full cache's. The page
has every method, budget and task, seen and unseen questions, times and intervals, and can be sorted; it loads nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.composition import compose_jobs
from benchmarks.evaluation.results import summary_of
from benchmarks.evaluation.store import RunFolder, find_runs
from benchmarks.evaluation.summary import Summary
from benchmarks.files import write_text, writing
from benchmarks.guard import Status, guarded
from benchmarks.tables.frame import budget_text
from benchmarks.tables.table import Row, Table, as_text, percent
from lookm.errors import LookmError
from lookm.registry import ready_strategies

from . import run


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: that of the sweep, or 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="N-1,N-2,S-4,T-1", help="shown besides the mean (default: N-1,N-2,S-4,T-1)")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    parser.add_argument("--page", type=Path, help="write an HTML page (default with run folders: leaderboard.html)")
    what = "as for run.py, such as limit=5 or alpha1=0.05; or run folders, which are only read"
    parser.add_argument("what", nargs="*", metavar="KEY=VALUE | RUNS", help=what)
    options = parser.parse_args(argv)
    overrides = [word for word in options.what if "=" in word or word.startswith(("+", "~"))]
    folders = [Path(word) for word in options.what if word not in overrides]
    if folders:
        if overrides or options.output:
            raise LookmError("run folders are only read, into a page: leave out --output and overrides, or the folders")
        write_page(find_runs(folders), options.page or Path("leaderboard.html"))
        return Status.DONE
    status, summaries = run_strategies(ready_strategies(), overrides, quiet=True)
    if summaries:
        text = as_text(leaderboard(summaries, options.tasks.split(",")))
        print(text)
        if options.output:
            write_text(options.output, f"{text}\n")
        if options.page:
            write_page([RunFolder(summary.settings.folder) for summary in summaries], options.page)
    return status


def write_page(runs: Sequence[RunFolder], page: Path) -> None:
    """Write the page of some runs.

    Raises:
        LookmError: no run has a sample, or the page cannot be written.
    """
    from benchmarks.report.groups import gather
    from benchmarks.report.leaderboard import boards, render

    if page.is_dir():
        raise LookmError(f"--page {page} is a folder; name a file, such as {page}/leaderboard.html")
    html = render(boards(gather(runs), page.resolve()))
    with writing(page, "--page"):
        write_text(page, html)
    print(f"written: {page} ({len(html.encode()) / 1024:.0f} KiB)")


def run_strategies(names: Sequence[str], overrides: Sequence[str], *, quiet: bool = False) -> tuple[int, list[Summary]]:
    """Computes what is missing of a sweep over strategies.

    Args:
        quiet: leaves out the sweep's own table.

    Returns:
        The sweep's exit status, and the runs' summaries in the order of `names`; none where the sweep did not end.

    Raises:
        LookmError: a run that is not there.
    """
    rows = [f"strategy={','.join(names)}", *overrides]
    with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
        status = run.main(["-m", *rows])
    if status not in (Status.DONE, Status.SAMPLES_FAILED):
        return status, []
    return status, [summary_of(settings) for settings in compose_jobs(rows)]


def leaderboard(summaries: Sequence[Summary], tasks: Sequence[str]) -> Table:
    """A line a strategy, best mean first, chance where it belongs."""
    first = summaries[0]
    full = next((item.mean.kept_bytes for item in summaries if item.settings.is_full), None)
    lines = []
    for item in summaries:
        scores = {task: row.scores.get("official") for task, row in {**item.rows, "mean": item.mean}.items()}
        share = item.mean.kept_bytes / full if item.mean.kept_bytes and full else None
        lines.append((item.settings.strategy.label, scores, (percent(share), percent(item.mean.changed))))
    chance = {task: row.chance for task, row in {**first.rows, "mean": first.mean}.items()}
    lines.append(("chance", chance, ("", "")))
    lines.sort(key=lambda line: line[1].get("mean") or 0.0, reverse=True)
    columns = ("mean", *tasks)
    rows = [Row((name, *(percent(scores.get(column)) for column in columns), *costs)) for name, scores, costs in lines]
    strategy = next((item.settings.strategy for item in summaries if item.settings.compresses), None)
    budget = f"{budget_text(strategy.alpha1, strategy.alpha2, strategy.budget)} · " if strategy else ""
    budget = f"α {budget}" if strategy and strategy.budget is None else budget
    title = f"{first.model_label} · {first.settings.benchmark.label} · {budget}{first.mean.n} samples · scores in %"
    return Table(title, ("strategy", *columns, "bytes %", "changed %"), tuple(rows))


if __name__ == "__main__":
    sys.exit(main())
