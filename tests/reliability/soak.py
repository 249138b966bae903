"""Long work, and work that is killed again and again: what a run must survive, done on purpose.

    python -m tests.reliability.soak --samples 2000
    python -m tests.reliability.soak --kills 200

Exit status: 0 all well, 1 memory grew, samples failed or bytes differ, 2 wrong input.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.evaluation.settings import Settings
from benchmarks.evaluation.verify import difference
from benchmarks.files import write_json
from lookm.errors import LookmError
from tests.reliability.crashes import killed_after
from tests.reliability.residence import Residence

# Threads that wait by spinning make small models a hundred times slower when another program wants a core too.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_DATASETS = 12  # of the mini benchmark
_ROUNDS = 8
_FLAT = 4096.0  # bytes per sample: below, 100,000 samples stay within 0.4 GB


@dataclass(frozen=True)
class Load:
    """One long run.

    Attributes:
        samples: asked by it; failed: of these without an answer.
        seconds: it took.
        memory: (seconds, resident bytes) over time.
        growth: bytes per sample by which the resident memory grew in the second half.
    """

    samples: int
    failed: int
    seconds: float
    memory: tuple[tuple[float, int], ...]
    growth: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "samples": self.samples,
            "failed": self.failed,
            "seconds": round(self.seconds, 1),
            "growth_bytes_per_sample": round(self.growth, 1),
            "memory": [[round(second, 1), size] for second, size in self.memory],
        }


@dataclass(frozen=True)
class Kills:
    """Runs that were killed and went on.

    Attributes:
        kills: how often a process was killed at work.
        runs: finished runs that were compared with an undisturbed one.
        differences: what was not the same in them, a line each.
    """

    kills: int
    runs: int
    differences: tuple[str, ...]


def load(settings: Settings, rounds: int, *, every: float = 1.0) -> Load:
    """Computes the same run again and again, in folders of their own, and watches the memory of this process.

    The work of every round is the same, so that memory which grows from round to round is memory that is lost.

    Args:
        settings: of the run; rounds are in the folders `1`, `2` … of its folder of results.
        rounds: how often.
        every: seconds between two looks at the memory.

    Raises:
        LookmError: as `run`.
    """
    from benchmarks.evaluation.run import load_backbone, run

    load_backbone(settings)
    began, computed, failed = time.monotonic(), 0, 0
    with Residence(every) as residence:
        for number in range(1, rounds + 1):
            outcome = run(replace(settings, results_dir=settings.results_dir / str(number)))
            computed, failed = computed + outcome.computed, failed + outcome.failed
    seconds = time.monotonic() - began
    growth = residence.growth() * seconds / max(1, computed)
    return Load(computed, failed, seconds, tuple(residence.samples), growth)


def kill_often(
    settings: Settings, folder: Path, kills: int, *, seed: int = 0, report: Callable[[str], None] = lambda line: None
) -> Kills:
    """Kills runs at random moments, lets them go on until they end, and compares them with an undisturbed one.

    Args:
        settings: what to run; its folder of results is not used.
        folder: where the runs are made, empty.
        kills: how many kills to make.
        seed: draws the moments.
        report: gets a line now and then.

    Raises:
        LookmError: as `run`.
        RuntimeError: a run failed otherwise than by being killed.
    """
    from benchmarks.evaluation.run import run

    reference = replace(settings, results_dir=folder / "undisturbed")
    run(reference)  # loads the model, which the children inherit
    began = time.monotonic()
    run(replace(settings, results_dir=folder / "timed"))
    longest = time.monotonic() - began
    moments, made, finished = random.Random(seed), 0, 0
    differences: list[str] = []
    while made < kills or finished == 0:
        current = replace(settings, results_dir=folder / f"killed{finished}")
        if killed_after(lambda current=current: run(current), moments.uniform(0, longest)):  # type: ignore[misc]
            made += 1
            longest *= 1.1  # the moments follow the machine's speed: about every second child is to be killed
            continue
        found = difference(current.folder, reference.folder)
        if found:
            differences.append(f"run {finished}: {found}")
        finished += 1
        longest *= 0.8
        report(f"{made} kills, {finished} runs, {len(differences)} differ")
    return Kills(made, finished, tuple(differences))


def draw(result: Load, path: Path, title: str) -> None:
    """Draws resident memory over time as a PNG, from zero, so that flat looks flat."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([second for second, _ in result.memory], [size / 2**20 for _, size in result.memory])
    axes.set(xlabel="seconds", ylabel="resident memory (MiB)", title=title, xlim=(0, None), ylim=(0, None))
    axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


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
        prog="python -m tests.reliability.soak",
        description="Let the tiny model work for long and watch its memory, or kill it again and again and compare the "
        "bytes. The runs themselves go to a temporary folder.",
        epilog="Exit status: 0 all well, 1 memory grew, samples failed or bytes differ, 2 wrong input.",
    )
    parser.add_argument("--samples", type=int, default=0, metavar="N", help="ask so many, in 8 rounds over 12 datasets")
    parser.add_argument("--kills", type=int, default=0, metavar="N", help="kill runs of 24 samples so often (SIGKILL)")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments of the kills (0)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="write the results there, as JSON and PNG")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for run.py, such as strategy=h2o")
    return parser


def _settings(options: argparse.Namespace, folder: Path, *overrides: str) -> Settings:
    from benchmarks.composition import compose_one

    return compose_one([f"results_dir={folder}", f"data_dir={folder}", *overrides, *options.overrides])


def _load(options: argparse.Namespace) -> bool:
    if options.samples < _DATASETS * _ROUNDS:
        raise LookmError(f"--samples is {options.samples}; give at least {_DATASETS * _ROUNDS}")
    each = -(-options.samples // (_DATASETS * _ROUNDS))
    with tempfile.TemporaryDirectory() as folder:
        result = load(_settings(options, Path(folder), f"benchmark.samples={each}"), _ROUNDS)
    sizes = [size / 2**20 for _, size in result.memory]
    title = f"{result.samples} samples, {result.growth / 1024:+.2f} KiB per sample in the second half"
    if options.output is not None:
        write_json(options.output / "soak.json", result.to_dict())
        draw(result, options.output / "soak.png", title)
    print(f"{title}; {sizes[0]:.0f} MiB at the start, {max(sizes):.0f} MiB at the peak, {result.failed} failed")
    return result.growth < _FLAT and not result.failed


def _kills(options: argparse.Namespace) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        settings = _settings(options, Path(folder), "limit=2", "benchmark.samples=2", "model.batch_size=2")
        result = kill_often(
            settings,
            Path(folder),
            options.kills,
            seed=options.seed,
            report=_report,
        )
    if options.output is not None:
        write_json(options.output / "kills.json", asdict(result))
    for line in result.differences:
        print(line)
    print(f"{result.kills} kills in {result.runs} runs; {len(result.differences)} runs differ from an undisturbed one")
    return not result.differences


def _report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
