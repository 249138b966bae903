"""The curriculum: facts alone, then named pictures, then all tasks, then prompts as long as the evaluation's."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.mini.taxonomy import TASKS

from .exercises import WORDS
from .recall import ALBUM, FIND, MATCH, RECITE

HARDER = dict.fromkeys(("S-2", "S-4", "S-5", "N-2", "T-2", "I-1"), 2.0)
EVERY_TASK = {task.task: 1.0 for task in TASKS} | HARDER


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


NAMED = {RECITE: 1.0, WORDS: 1.0, ALBUM: 10.0, "N-1": 1.0, "N-2": 1.0, "S-2": 1.0}
FOUND = {FIND: 10.0, ALBUM: 1.0, "N-2": 2.0, "S-5": 2.0, "I-1": 2.0, "T-2": 1.0}
LOOKED_UP = EVERY_TASK | {ALBUM: 1.0, FIND: 2.0}
MATCHED = EVERY_TASK | {"I-1": 4.0, ALBUM: 0.5, FIND: 1.0, MATCH: 6.0}
CURRICULUM: tuple[Stage, ...] = (
    Stage("words", 250, 0, 0, tokens=2_000, batches=1, shares={RECITE: 1.0, WORDS: 0.5}),
    Stage("album", 500, 1, 6, tokens=4_000, shares=NAMED),
    Stage("tasks", 500, 3, 8, tokens=5_000, shares=EVERY_TASK | {RECITE: 0.5, WORDS: 0.5, ALBUM: 4.0}),
    Stage("find", 300, 2, 8, tokens=4_000, shares=FOUND),
    Stage("long prompts", 200, 6, 40, tokens=7_000, shares=LOOKED_UP, single=0.3, final_rate=3.2e-4),
    Stage("match", 350, 6, 40, tokens=7_000, shares=MATCHED, single=0.3, rate=5e-4, final_rate=1e-4),
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
