"""The paper's eleven rows on MileBench-mini with the tiny model, into `results/mini/`.

    python -m scripts.mini_table

Runs what is missing of `run.py -m strategy=full,h2o,…`, then writes the comparison as `table.txt` and, cell by cell, as
`table.json`, with the command, the hardware and the versions. These are numbers of the tiny model on generated data:
they belong in no column of the paper's benchmark.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir

from benchmarks.evaluation.provenance import git_state, hardware, versions
from benchmarks.evaluation.results import summary_of
from benchmarks.evaluation.settings import Settings, read_settings
from benchmarks.evaluation.summary import Summary, TaskRow
from benchmarks.files import write_json, write_text
from benchmarks.guard import guarded
from benchmarks.run_table import comparison_table
from lookm.locations import CONFIGS
from lookm.registry import PAPER_ROWS

OUTPUT = Path("results/mini")


def settings_of(strategy: str, overrides: list[str]) -> Settings:
    """The settings that `run.py strategy=… overrides` has."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("config", [f"strategy={strategy}", *overrides])
    return read_settings(config, {"model": "tiny", "benchmark": "mini", "strategy": strategy, "logger": "none"})


def cells(summary: Summary) -> dict[str, Any]:
    """One strategy's rows, ready for JSON."""

    def numbers(row: TaskRow) -> dict[str, Any]:
        return {
            "n": row.n,
            "failed": row.failed,
            **row.scores,
            "chance": row.chance,
            "realised_budget": row.budget,
            "kept_bytes": row.kept_bytes,
            "changed_answers": row.changed,
            "decode_ms_per_token": row.decode_ms,
        }

    strategy = summary.settings.strategy
    return {
        "strategy": strategy.name,
        "semantics": strategy.semantics,
        "alpha1": strategy.alpha1,
        "alpha2": strategy.alpha2,
        "tasks": {row.task: numbers(row) for row in (*summary.rows, summary.mean)},
    }


@guarded
def main(argv: list[str] | None = None) -> int:
    """Run, compare, write; returns the exit status of the runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder of table.txt and table.json")
    parser.add_argument("overrides", nargs="*", help="as for run.py, such as limit=5 or alpha1=0.05")
    options = parser.parse_args(argv)
    command = ["run.py", "-m", f"strategy={','.join(PAPER_ROWS)}", *options.overrides]
    status = subprocess.run([sys.executable, str(CONFIGS.parent / command[0]), *command[1:]], check=False).returncode
    if status not in (0, 3):  # 3: some samples failed; the table counts them
        return status
    summaries = [summary_of(settings_of(name, options.overrides)) for name in PAPER_ROWS]
    line = f"python {' '.join(command)}"
    write_text(options.output / "table.txt", f"$ {line}\n\n{comparison_table(summaries)}\n")
    write_json(
        options.output / "table.json",
        {
            "command": line,
            "label": f"{summaries[0].model_label} on {summaries[0].settings.benchmark.label}",
            "hardware": hardware("cpu"),
            "versions": versions(),
            "git": git_state(),
            "rows": [cells(summary) for summary in summaries],
        },
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
