"""Writes MileBench, or MileBench-mini, as tasks of lmms-eval.

    lookm lmms-tasks mini
    lookm lmms-tasks milebench --root data/MileBench --output lmms_tasks
    lmms_eval --include_path lmms_tasks --tasks milebench_T --model lookm --model_args model=llava7b,strategy=h2o

A dataset is a task, such as milebench_WebQA; milebench_S-1, milebench_S and milebench are groups. Runs without Hydra.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.files import writing
from benchmarks.guard import guarded


@guarded
def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 for wrong input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=("milebench", "mini"))
    parser.add_argument("--root", type=Path, help="where its data are (default: data/MileBench, data/mini)")
    parser.add_argument("--output", type=Path, default=Path("lmms_tasks"), help="folder (default: lmms_tasks)")
    options = parser.parse_args(argv)

    from benchmarks.lmms_eval.writing import write_tasks
    from benchmarks.milebench import milebench_benchmark
    from benchmarks.mini.benchmark import mini_benchmark

    if options.benchmark == "mini":
        benchmark = mini_benchmark(options.root or Path("data/mini"))
    else:
        benchmark = milebench_benchmark(options.root or Path("data/MileBench"))
    with writing(options.output, "--output"):
        names, left_out = write_tasks(benchmark, options.output)
    print(f"{options.output}: {', '.join(names)}")
    if left_out:
        print(f"left out: {left_out} samples, whose right answer is none of their choices")
    return 0


if __name__ == "__main__":
    sys.exit(main())
