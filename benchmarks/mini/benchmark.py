"""MileBench-mini as a benchmark that can be run; its data are written when they are first needed."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.benchmark import LAST_SENTENCE, Benchmark, DatasetInfo
from benchmarks.mini.sample import Place
from benchmarks.mini.taxonomy import TASKS
from benchmarks.mini.writer import MiniSettings, write_mini

ASKS = (r"\s*\bQ\s*:", r"\s*Who has the same as\{", LAST_SENTENCE)
"""Where the questions begin: after earlier ones of a conversation, with a picture of their own, or with a sentence."""


def mini_benchmark(
    root: str | os.PathLike[str],
    *,
    seed: int = 0,
    samples: int = 52,
    fewest_images: int = 8,
    most_images: int = 40,
    question: Place = "last",
    questions: int = 1,
    label: str = "MileBench-mini",
) -> Benchmark:
    """The twelve generated datasets below `root`, in a folder of their own for each setting.

    Args:
        root: folder that holds one folder for each setting.
        seed: one of the evaluation's seeds, 0 … 999,999.
        samples: contexts per dataset.
        fewest_images, most_images: images per sample.
        question: where the question stands in its prompt, `last` or `first`.
        questions: about each context, where it has so many; every one is a sample.

    Raises:
        LookmError: a setting that cannot be had.
    """
    settings = MiniSettings(seed, samples, fewest_images, most_images, question, questions)
    parent = Path(root)
    asks = ASKS if question == "last" else ()
    datasets = tuple(
        DatasetInfo(task.dataset, task.task, task.metric, samples * settings.asked(task), task.chance(), asks)
        for task in TASKS
    )

    def prepare() -> None:
        write_mini(parent, settings)

    return Benchmark(name="mini", label=label, root=parent / settings.folder, datasets=datasets, prepare=prepare)
