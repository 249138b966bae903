"""Long work, and work that is killed again and again: what a run must survive, done on purpose."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.evaluation.comparison import difference
from benchmarks.evaluation.settings import Settings
from benchmarks.trials.crashes import killed_after
from benchmarks.trials.residence import Residence


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
    from benchmarks.evaluation.loading import load_backbone
    from benchmarks.evaluation.runner import run

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
    settings: Settings, folder: Path, kills: int, *, seed: int = 0, told: Callable[[str], None] = lambda line: None
) -> Kills:
    """Kills runs at random moments, lets them go on until they end, and compares them with an undisturbed one.

    Args:
        settings: what to run; its folder of results is not used.
        folder: where the runs are made, empty.
        kills: how many kills to make.
        seed: draws the moments.
        told: gets a line now and then.

    Raises:
        LookmError: as `run`.
        RuntimeError: a run failed otherwise than by being killed.
    """
    from benchmarks.evaluation.runner import run

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
        told(f"{made} kills, {finished} runs, {len(differences)} differ")
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


def tell(line: str) -> None:
    """Says how far it is, on stderr."""
    print(line, file=sys.stderr, flush=True)
