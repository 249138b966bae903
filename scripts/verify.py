"""Is a run what its folder says? `python -m scripts.verify RUN_FOLDER` computes some of it again and compares.

Exit status: 0 all the same, 1 something differs, 2 wrong input.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.evaluation.verify import difference
from benchmarks.guard import guarded, positive

# Threads that wait by spinning make small models a hundred times slower when another program wants a core too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@guarded
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    return _compare(options.run, options.against) if options.against else _verify(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="lookm verify",
        description="Compute random samples of a run again, with the configuration that it recorded, and compare "
        "tokens, budgets and all else but times. Nothing is written.",
        epilog="Exit status: 0 all the same, 1 something differs, 2 wrong input.",
    )
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="such as results/runs/tiny-mini-full-fp32")
    parser.add_argument("--samples", type=positive, default=20, metavar="N", help="how many to compute again (20)")
    parser.add_argument("--seed", type=int, default=0, help="draws them (0)")
    parser.add_argument("--device", help="where to compute, such as cpu or cuda:1 (as the run was told)")
    parser.add_argument("--data-dir", metavar="PATH", help="where the benchmark data are now (as the run was told)")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="OTHER",
        help="compute nothing; compare the two folders byte by byte, times aside",
    )
    return parser


def _verify(options: argparse.Namespace) -> int:
    from benchmarks.evaluation.verify import verify

    given = {"device": options.device, "data_dir": options.data_dir}
    overrides = {key: value for key, value in given.items() if value is not None}
    result = verify(options.run, samples=options.samples, seed=options.seed, overrides=overrides)
    for line in result.differences:
        print(line)
    if result.code is False:
        print("note: the run was computed by another state of this program's sources", file=sys.stderr)
    ending = f"{len(result.differences)} differences" if result.differences else "all as recorded"
    print(f"{result.checked} of {result.answered} answers computed again: {ending}")
    return 1 if result.differences else 0


def _compare(one: Path, other: Path) -> int:
    found = difference(one, other)
    print(found or "the same bytes, times aside")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
