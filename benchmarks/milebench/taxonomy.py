"""MileBench's 29 datasets: task code, metric and size of each, and the means that the paper's tables show.

Source: MileBench (arXiv 2404.18532); `results/paper/taxonomy.csv` holds the same rows and a test compares them.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Union

from benchmarks.benchmark import BEHIND_IMAGES, LAST_SENTENCE, DatasetInfo
from lookm.errors import LookmError


def _rows(task: str, *names: str, samples: int = 200) -> tuple[DatasetInfo, ...]:
    rouge = {"Spot-the-Diff", "CLEVR-Change", "IEdit", "ALFRED"}
    return tuple(
        DatasetInfo(name, task, "rouge_l" if name in rouge else "accuracy", samples, None, _asks(name, task))
        for name in names
    )


def _asks(name: str, task: str) -> tuple[str, ...]:
    """Where the questions of a dataset begin, as `DatasetInfo.asks`.

    Differences are described and instructions for robots written because the instruction says so, before any image: of
    these four datasets no question can come later. Conversations and needles may go on in words behind the last image,
    so there only a mark or the last sentence will do; elsewhere the question is what follows the images.
    """
    if task == "S-3" or name == "ALFRED":
        return ()
    marks = (r"\s*\bQuestion\s*:", r"\s*\bQ\s*:")
    return (*marks, LAST_SENTENCE) if name == "MMCoQA" or task == "N-1" else (*marks, LAST_SENTENCE, BEHIND_IMAGES)


DATASETS: tuple[DatasetInfo, ...] = (
    *_rows("T-1", "ActionLocalization", "ActionPrediction", "ActionSequence"),
    *_rows("T-2", "ObjectExistence", "ObjectInteraction", "MovingAttribute", "ObjectShuffle"),
    *_rows("T-3", "EgocentricNavigation", "MovingDirection"),
    *_rows("T-4", "CounterfactualInference", "StateChange", "CharacterOrder", "SceneTransition"),
    *_rows("S-1", "WebQA", "TQA", "MultiModalQA", "WikiVQA"),
    *_rows("S-2", "SlideVQA", "OCR-VQA", "DocVQA"),
    *_rows("S-3", "Spot-the-Diff", "CLEVR-Change", "IEdit"),
    *_rows("S-4", "MMCoQA", "ALFRED"),
    *_rows("S-5", "nuscenes"),
    *_rows("N-1", "TextNeedleInAHaystack", samples=320),
    *_rows("N-2", "ImageNeedleInAHaystack", samples=320),
    *_rows("I-1", "GPR1200", samples=600),
)

ADVERSARIAL_DATASETS: tuple[DatasetInfo, ...] = tuple(
    info for info in DATASETS if info.dataset != "GPR1200" and "Needle" not in info.dataset
)
"""The datasets that have `-adv` samples."""

TASKS: tuple[str, ...] = tuple(dict.fromkeys(row.task for row in DATASETS))

GROUPS: dict[str, tuple[str, ...]] = {
    "T": tuple(task for task in TASKS if task.startswith("T")),
    "S": tuple(task for task in TASKS if task.startswith("S")),
    "N": ("N-1", "N-2"),
    "I": ("I-1",),
    "NH": ("N-1", "N-2"),
    "IR": ("I-1",),
}

PAPER_COLUMNS: tuple[str, ...] = (*GROUPS["T"], *GROUPS["S"], "NH", "IR")
"""The columns of the paper's score tables, in its order."""


Tree = Union[str, tuple["Tree", ...]]  # noqa: UP007 (a name in quotes does not know |)
"""Datasets nested as they are averaged: a dataset's name, or a tuple of parts that count alike."""


def mean_weights(tree: Tree, present: Container[str]) -> dict[str, float]:
    """Weights of datasets in a mean of means, the one definition that all scores of tasks, columns and runs follow.

    Args:
        tree: how datasets are averaged; parts without a present dataset are left out.

    Returns:
        dataset → weight; they add up to 1, or there are none.

    Example:
        >>> mean_weights((("A", "B"), ("C",), ("D",)), {"A", "B", "C"})
        {'A': 0.25, 'B': 0.25, 'C': 0.5}
    """
    if isinstance(tree, str):
        return {tree: 1.0} if tree in present else {}
    parts = [weights for part in tree if (weights := mean_weights(part, present))]
    total: dict[str, float] = {}
    for weights in parts:
        for dataset, weight in weights.items():
            total[dataset] = total.get(dataset, 0.0) + weight / len(parts)
    return total


def datasets_of(code: str, datasets: Sequence[DatasetInfo] = DATASETS) -> tuple[DatasetInfo, ...]:
    """The datasets behind a dataset's name, a task code (`T-1`) or a group (`T`, `S`, `N`, `I`, `NH`, `IR`).

    Args:
        datasets: the taxonomy to look in; a benchmark with MileBench's task codes may pass its own.

    Raises:
        LookmError: nothing is called so; the message lists what exists.
    """
    tasks = GROUPS.get(code, (code,))
    found = tuple(row for row in datasets if row.task in tasks or row.dataset == code)
    if not found:
        present = {row.task for row in datasets}
        groups = [group for group, members in GROUPS.items() if present.intersection(members)]
        names = [row.dataset for row in datasets]
        known = ", ".join([*groups, *sorted(present), *names])
        raise LookmError(f"no dataset, task or group is called {code!r}; there are: {known}")
    return found
