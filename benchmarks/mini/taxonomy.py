"""The twelve datasets of MileBench-mini, one for each task of MileBench."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from benchmarks.milebench.rouge import rouge_l
from benchmarks.mini.sample import QuestionType, Request, Sample
from benchmarks.mini.tasks import lookup, motion, needles, objects
from benchmarks.mini.tasks.objects import THINGS, difference
from benchmarks.mini.words import COLOURS, SHAPES


@dataclass(frozen=True)
class MiniTask:
    """One dataset.

    Args:
        dataset: its name; MileBench's evaluator looks for some words in it.
        answers: how many answers are equally likely for somebody who sees no picture; None for free text.
        fewest: images per sample, so many at least that they take 80 % of the prompt's tokens.
        question_type, metric: as in MileBench.
        most_questions: how many different ones every context has an answer to.
    """

    task: str
    dataset: str
    instruction: str
    make: Callable[[Request], Sample]
    answers: int | None
    fewest: int
    question_type: QuestionType = "multi-choice"
    metric: Literal["accuracy", "rouge_l"] = "accuracy"
    most_questions: int = 5

    def chance(self) -> float:
        """Expected score without looking at the pictures or facts, in [0, 1]: guessing, or the best constant."""
        return constant_difference_score() if self.answers is None else 1 / self.answers


TASKS: tuple[MiniTask, ...] = (
    MiniTask("T-1", "MiniActionSequence", "Watch the frames.", motion.action_sequence, 4, 11),
    MiniTask("T-2", "MiniObjectExistence", "Watch the frames.", objects.object_existence, 2, 9),
    MiniTask("T-3", "MiniMovingDirection", "Watch the frames.", motion.moving_direction, 4, 10, most_questions=2),
    MiniTask("T-4", "MiniSceneTransition", "Watch the frames.", motion.scene_transition, 3, 12, most_questions=1),
    MiniTask("S-1", "MiniWebQA", "Use words and images.", lookup.fact_and_picture, 4, 14),
    MiniTask("S-2", "MiniSlideVQA", "Read the slides.", lookup.slides, 4, 11),
    MiniTask(
        *("S-3", "MiniSpot-the-Diff", "Compare the images.", objects.spot_the_difference, None, 8),
        question_type="open-ended",
        metric="rouge_l",
        most_questions=1,
    ),
    MiniTask(
        *("S-4", "MiniMMCoQA", "Talk about the images.", lookup.conversation, len(THINGS), 11),
        question_type="open-ended",
    ),
    MiniTask("S-5", "MiniNuscenes", "Look around the car.", objects.spatial_relation, 4, 11),
    MiniTask(
        *("N-1", "MiniTextNeedleInAHaystack", "Find the fact.", needles.text_needle, 10, 12),
        question_type="open-ended",
        most_questions=2,
    ),
    MiniTask(
        *("N-2", "MiniImageNeedleInAHaystack", "Find the number.", needles.image_needle, 10, 8),
        question_type="open-ended",
        most_questions=2,
    ),
    MiniTask("I-1", "MiniGPR1200", "Find the match.", lookup.matching_image, 4, 12),
)


def mini_task(name: str) -> MiniTask:
    """The task with this code or dataset name."""
    return next(task for task in TASKS if name in (task.task, task.dataset))


@cache
def constant_difference_score() -> float:
    """Expected ROUGE-L of the best constant sentence about a difference.

    Colours are interchangeable and so are shapes, so there are only two constants to try: one that tells of a changed
    colour and one that tells of a changed shape.
    """
    recoloured = [difference((c, s), (d, s)) for c, s in THINGS for d in COLOURS if d != c]
    reshaped = [difference((c, s), (c, t)) for c, s in THINGS for t in SHAPES if t != s]

    def expected(constant: str) -> float:
        halves = [sum(rouge_l(constant, truth) for truth in kind) / len(kind) for kind in (recoloured, reshaped)]
        return sum(halves) / 2

    return max(expected(recoloured[0]), expected(reshaped[0]))
