"""The curriculum: words alone, then a few pictures, then prompts as long as the evaluation's."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.mini.taxonomy import TASKS
from scripts.tiny_training.exercises import PICTURE, WORDS

EVERY_TASK = {task.task: 1.0 for task in TASKS} | dict.fromkeys(("S-2", "S-4", "N-2", "I-1"), 2.0)


@dataclass(frozen=True)
class Stage:
    """Some steps on prompts of one kind.

    Args:
        name: what the log calls it.
        steps: optimiser steps.
        fewest, most: pictures per prompt (films always have six or more).
        tokens: prompt and answer tokens per step.
        batches: parts of similar length into which a step is divided.
        questions: most questions per prompt.
        single: share of the prompts that have one question, as in the evaluation.
        choices: share of the others whose questions list their choices.
        shares: how often each task or exercise is drawn.
        rate: learning rate at the start of the stage.
        final_rate: learning rate at its end; it falls exponentially in between.
    """

    name: str
    steps: int
    fewest: int
    most: int
    tokens: int = 8_000
    batches: int = 3
    questions: int = 8
    single: float = 0.1
    choices: float = 0.2
    shares: Mapping[str, float] = field(default_factory=lambda: EVERY_TASK)
    rate: float = 1e-3
    final_rate: float = 1e-3


CURRICULUM: tuple[Stage, ...] = (
    Stage("words", 1750, 0, 0, batches=1, shares={WORDS: 1.0}, rate=3e-3, final_rate=1.2e-3),
    Stage("few pictures", 1000, 2, 6, shares=EVERY_TASK | {WORDS: 6.0, PICTURE: 60.0}),
    Stage("more pictures", 1500, 4, 12, shares=EVERY_TASK | {WORDS: 2.0, PICTURE: 10.0}),
    Stage("long prompts", 1000, 8, 40, shares=EVERY_TASK | {PICTURE: 5.0}, single=0.3, final_rate=2e-5),
)


def stage_at(stages: tuple[Stage, ...], step: int) -> tuple[Stage, float]:
    """The stage of an optimiser step (from 0) and the learning rate in it."""
    done = 0
    for stage in stages:
        if step < done + stage.steps:
            share = (step - done) / stage.steps
            rate = stage.rate * (stage.final_rate / stage.rate) ** share
            warm_up = min(1.0, (step + 1) / 100)
            return stage, rate * warm_up
        done += stage.steps
    raise IndexError(f"the curriculum ends after {done} steps")


def described(stages: tuple[Stage, ...]) -> str:
    """The curriculum in one line, for the training card."""
    return "; ".join(
        f"{stage.name} ({stage.steps:,} steps, {stage.fewest}-{stage.most} pictures, "
        f"rate {stage.rate:g} to {stage.final_rate:g})"
        for stage in stages
    )
