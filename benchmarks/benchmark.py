"""What a benchmark is: its name, where it lies, which datasets it holds, and which of their samples are selected."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Metric = Literal["accuracy", "rouge_l"]
SUBSETS = ("first", "random")
BEHIND_IMAGES = r"(?<=\})[^{}]*$"
"""All that follows the last image or table."""
LAST_SENTENCE = r"\s*[^\s.!?{}][^.!?\n{}]*\?\s*$"
"""The sentence that ends with a question mark, where it ends the context."""


@dataclass(frozen=True)
class DatasetInfo:
    """One dataset of a benchmark.

    Attributes:
        dataset: name of its folder and of the annotation file in it (`<root>/<dataset>/<dataset>.json`).
        task: task code of MileBench's taxonomy, `T-1` … `I-1`; several datasets may share one.
        metric: what the task's score is made of.
        samples: how many samples the complete dataset has.
        chance: expected score of guessing without looking, in [0, 1]; None where nobody worked it out.
        asks: regular expressions that find where a question begins in a sample's context, the first that finds
            something counts; none where the instruction asks, before there is a context.
    """

    dataset: str
    task: str
    metric: Metric
    samples: int
    chance: float | None
    asks: tuple[str, ...] = ()

    def question_start(self, context: str, *, choices: bool) -> int | None:
        """Where the question begins in a sample's context, with its white space; None where nothing is before it.

        Args:
            context: of the annotation, with `{image#k}`.
            choices: whether a list of choices follows the context: then the question may have no other words.
        """
        for pattern in self.asks:
            *_, last = [None, *re.finditer(pattern, context)]
            if last is not None:
                asks = bool(context[: last.start()].strip()) and bool(choices or last[0].strip())
                return last.start() if asks else None
        return None


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


def select_positions(count: int, *, limit: int | None, subset: str = "first", seed: int = 0, dataset: str) -> list[int]:
    """Positions of the selected samples, ascending.

    A random subset is a function of seed, dataset and count alone, so that runs of all models and strategies are
    paired, and of nested sizes: the 20 samples of `limit=20` are among the 50 of `limit=50`. It is what
    `datasets.Dataset.shuffle(seed=subset_seed(seed, dataset))` puts first; that library takes longer to import than a
    tiny run's data take to read, so it is not asked here.

    Args:
        limit: how many to take at most; None takes all.
        subset: "first" or "random".
        seed: the run's seed; each dataset draws with one of its own made from it.
    """
    if limit is None or limit >= count:
        return list(range(count))
    if subset == "first":
        return list(range(limit))
    import numpy as np

    order = np.random.default_rng(subset_seed(seed, dataset)).permutation(count)
    return sorted(order[:limit].tolist())


def subset_seed(seed: int, dataset: str) -> int:
    """The seed with which a dataset's samples are shuffled, in [0, 2³²)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{dataset}".encode()).digest()[:4], "big")
