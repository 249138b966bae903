"""Load and kills on the tiny model: `python -m scripts.soak --samples 2000` and `python -m scripts.soak --kills 200`.

Exit status: 0 all well, 1 memory grew, samples failed or bytes differ, 2 wrong input.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.evaluation.files import write_json
from lookm.errors import LookmError

if TYPE_CHECKING:
    from benchmarks.evaluation.settings import Settings

# Threads that wait by spinning make small models a hundred times slower when another program wants a core too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

OUTPUT = Path("results/reliability")
_DATASETS = 12  # of the mini benchmark
_ROUNDS = 8
_FLAT = 4096.0  # bytes per sample: below, 100,000 samples stay within 0.4 GB


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        done = [_load(options)] if options.samples else []
        done += [_kills(options)] if options.kills else []
    except LookmError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not done:
        print("error: nothing to do; give --samples N or --kills N", file=sys.stderr)
        return 2
    return 0 if all(done) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m scripts.soak",
        description="Let the tiny model work for long and watch its memory, or kill it again and again and compare the "
        "bytes. Results go to --output as JSON and PNG; the runs themselves to a temporary folder.",
        epilog="Exit status: 0 all well, 1 memory grew, samples failed or bytes differ, 2 wrong input.",
    )
    parser.add_argument("--samples", type=int, default=0, metavar="N", help="ask so many, in 8 rounds over 12 datasets")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kill runs of 24 samples so often (SIGKILL)")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments of the kills (0)")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FOLDER", help=f"where results go ({OUTPUT})")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for run.py, such as strategy=h2o")
    return parser


def _settings(options: argparse.Namespace, folder: Path, *overrides: str) -> Settings:
    from benchmarks.composition import compose_one

    return compose_one([f"results_dir={folder}", f"data_dir={folder}", *overrides, *options.overrides])


def _load(options: argparse.Namespace) -> bool:
    from benchmarks.trials.soak import draw, load

    if options.samples < _DATASETS * _ROUNDS:
        raise LookmError(f"--samples is {options.samples}; give at least {_DATASETS * _ROUNDS}")
    each = -(-options.samples // (_DATASETS * _ROUNDS))
    with tempfile.TemporaryDirectory() as folder:
        result = load(_settings(options, Path(folder), f"benchmark.samples={each}"), _ROUNDS)
    write_json(options.output / "soak.json", result.to_dict())
    sizes = [size / 2**20 for _, size in result.memory]
    title = f"{result.samples} samples, {result.growth / 1024:+.2f} KiB per sample in the second half"
    draw(result, options.output / "soak.png", title)
    print(f"{title}; {sizes[0]:.0f} MiB at the start, {max(sizes):.0f} MiB at the peak, {result.failed} failed")
    return result.growth < _FLAT and not result.failed


def _kills(options: argparse.Namespace) -> bool:
    from benchmarks.trials.soak import kill_often, tell

    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(options, Path(folder), "limit=2", "benchmark.samples=2", "model.batch_size=2")
        result = kill_often(settings, Path(folder), options.kills, seed=options.seed, told=tell)
    write_json(options.output / "kills.json", asdict(result))
    for line in result.differences:
        print(line)
    print(f"{result.kills} kills in {result.runs} runs; {len(result.differences)} runs differ from an undisturbed one")
    return not result.differences


if __name__ == "__main__":
    sys.exit(main())
