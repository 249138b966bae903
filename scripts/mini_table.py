"""The paper's eleven rows on MileBench-mini with the tiny model.

    python -m scripts.mini_table                            prints the table
    python -m scripts.mini_table --output results/mini      and writes table.txt and table.json there

Runs what is missing of `run.py -m strategy=full,h2o,…`. `table.json` has every cell unrounded, with the command, the
hardware and the versions. These are numbers of the tiny model on generated data: they belong in no column of the
paper's benchmark.
"""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.composition import compose_one
from benchmarks.evaluation.provenance import git_state, hardware, versions
from benchmarks.evaluation.results import summary_of
from benchmarks.evaluation.summary import Summary
from benchmarks.files import write_json, write_text
from benchmarks.guard import guarded
from benchmarks.tables.run_tables import comparison_table
from benchmarks.tables.table import as_text
from lookm.registry import PAPER_ROWS

from . import run


def rows_of(summary: Summary) -> dict[str, Any]:
    """One strategy's rows, ready for JSON."""
    strategy = summary.settings.strategy
    tasks = {row.task: {key: value for key, value in asdict(row).items() if key != "task"} for row in summary.rows}
    mean = {key: value for key, value in asdict(summary.mean).items() if key != "task"}
    return {
        "strategy": strategy.name,
        "semantics": strategy.semantics,
        "alpha1": strategy.alpha1,
        "alpha2": strategy.alpha2,
        "tasks": {**tasks, "mean": mean},
    }


@guarded
def main(argv: list[str] | None = None) -> int:
    """Run, compare, print or write; returns the exit status of the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for table.txt and table.json; without it none is written")
    parser.add_argument("overrides", nargs="*", help="as for run.py, such as limit=5 or alpha1=0.05")
    options = parser.parse_args(argv)
    command = ["run.py", "-m", f"strategy={','.join(PAPER_ROWS)}", *options.overrides]
    status = run.main(command[1:])
    if status not in (0, 3):  # 3: some samples failed; the table counts them
        return status
    if options.output is None:
        return status  # the sweep has printed the table
    summaries = [summary_of(compose_one([f"strategy={name}", *options.overrides])) for name in PAPER_ROWS]
    line, table = f"python {' '.join(command)}", comparison_table(summaries)
    write_text(options.output / "table.txt", f"$ {line}\n\n{as_text(table)}\n")
    about = {
        "command": line,
        "label": f"{summaries[0].model_label} on {summaries[0].settings.benchmark.label}",
        "hardware": hardware("cpu"),
        "versions": versions(),
        "git": git_state(),
        "rows": [rows_of(summary) for summary in summaries],
    }
    write_json(options.output / "table.json", about)
    print(f"written: {options.output / 'table.txt'}, {options.output / 'table.json'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
