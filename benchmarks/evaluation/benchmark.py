"""What the runner needs to know of a benchmark: its name, where it lies and which datasets it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Metric = Literal["accuracy", "rouge_l"]


@dataclass(frozen=True)
class DatasetInfo:
    """One dataset of a benchmark.

    Attributes:
        dataset: name of its folder and of the annotation file in it (`<root>/<dataset>/<dataset>.json`).
        task: task code of MileBench's taxonomy, `T-1` … `I-1`; several datasets may share one.
        metric: what the task's score is made of.
        samples: how many samples the complete dataset has.
        chance: expected score of guessing without looking, in [0, 1]; None where nobody worked it out.
    """

    dataset: str
    task: str
    metric: Metric
    samples: int
    chance: float | None


@dataclass(frozen=True)
class Benchmark:
    """A folder of datasets in MileBench's on-disk format.

    Attributes:
        name: the name of its YAML in `configs/benchmark`.
        label: what tables call it, such as "MileBench-mini".
        root: folder that holds one folder per dataset.
        datasets: its datasets, in the order in which tables show them.
        adversarial: whether the `-adv` annotations are read.
        combine_image: N where each sample's images are shown as N grids; None shows them one by one.
        prepare: writes the data or checks that they are there; raises `LookmError` that says how to get them.
        missing: datasets that are not in the folder though others are; runs that do not name them go on without them.
    """

    name: str
    label: str
    root: Path
    datasets: tuple[DatasetInfo, ...]
    prepare: Callable[[], None]
    adversarial: bool = False
    combine_image: int | None = None
    missing: tuple[DatasetInfo, ...] = ()
