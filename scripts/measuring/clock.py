"""Times of work on the CPU or a GPU: warmed up, synchronised, repeated, with median and spread."""

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch

from lookm.stopwatch import Mark


def elapsed_ms(work: Callable[[], object], device: torch.device) -> float:
    """Milliseconds of one call, until the device has finished it."""
    begin = Mark.now(device)
    work()
    return begin.milliseconds_until(Mark.now(device))


def summary(runs: list[float]) -> dict[str, Any]:
    """Median, smallest and largest of some milliseconds, and all of them."""
    return {
        "median_ms": round(statistics.median(runs), 4),
        "min_ms": round(min(runs), 4),
        "max_ms": round(max(runs), 4),
        "runs_ms": [round(run, 4) for run in runs],
    }


def in_turns(
    works: Mapping[str, Callable[[], object]], device: torch.device, repeats: int
) -> dict[str, dict[str, Any]]:
    """Measure several works in turns, so that whatever else the machine does meets all of them.

    Args:
        works: by name; the first is what the others are compared with.
        device: where they run.
        repeats: rounds after one for warming up.

    Returns:
        For each its `summary`, and `times_first`: the median over the rounds of its time by the first one's.
    """
    for work in works.values():
        elapsed_ms(work, device)
    runs: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            runs[name].append(elapsed_ms(work, device))
    first = next(iter(runs.values()))
    return {
        name: {
            **summary(values),
            "times_first": round(statistics.median(own / base for own, base in zip(values, first, strict=True)), 4),
        }
        for name, values in runs.items()
    }


def read_bandwidth(device: torch.device, size: int = 1 << 28) -> float:
    """Bytes a second that a sum over `size` bytes reads, the best of ten."""
    numbers = torch.ones(size // 4, device=device)
    numbers.sum()
    best = min(elapsed_ms(numbers.sum, device) for _ in range(10))
    return 1000 * size / best
