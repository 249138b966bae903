"""The curriculum."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from benchmarks.mini.taxonomy import TASKS
from lookm.models.tiny import TOKENS_PER_IMAGE

EVERY_TASK = {task.task: 1.0 for task in TASKS}


@dataclass(frozen=True)
class Stage:
    """Some steps on prompts of one kind.

    Args:
        name: what the log calls it.
        steps: optimiser steps.
        fewest, most: pictures per prompt.
        every: a prompt keeps one image token of so many neighbours, their mean, at the first one's position.
        tokens: prompt and answer tokens per step; pictures where the vision tower learns to see.
        batches: parts of similar length into which a step is divided.
        questions: most questions per prompt.
        single: share of the prompts that have one question, as in the evaluation.
        choices: share of the others whose questions list their choices.
        first: share of the prompts whose first question stands before everything else.
        shares: how often each task is drawn; empty where the vision tower learns to see.
        see: whether vision tower and projector learn too.
        rate: learning rate at the start of the stage.
        final_rate: learning rate at its end; it falls exponentially in between.
    """

    name: str
    steps: int
    fewest: int = 0
    most: int = 0
    every: int = 1
    tokens: int = 4_000
    batches: int = 3
    questions: int = 12
    single: float = 0.1
    choices: float = 0.3
    first: float = 0.25
    shares: Mapping[str, float] = field(default_factory=lambda: EVERY_TASK)
    see: bool = False
    rate: float = 2e-3
    final_rate: float = 2e-3


SLOW = EVERY_TASK | {"T-3": 3.0, "T-4": 3.0, "I-1": 2.0, "T-2": 2.0}  # few questions a prompt, or slow to be learnt
LATE = EVERY_TASK | {"T-1": 3.0, "I-1": 3.0, "S-1": 2.0, "S-2": 1.5, "N-1": 2.0}  # behind when all tokens are read
CURRICULUM: tuple[Stage, ...] = (
    Stage("see", 2000, tokens=128, shares={}, rate=2e-3, final_rate=1e-4),
    # The rate would halve in 2,000 steps.
    Stage("glance", 1200, 4, 12, 16, tokens=2_000, choices=0.15, shares=SLOW, rate=1e-3, final_rate=1e-3 * 0.5**0.6),
    Stage("glance far", 200, 8, 40, 16, tokens=2_000, choices=0.15, shares=SLOW, rate=6e-4, final_rate=5e-4),
    # As if 400 steps led to 1e-4.
    Stage("read", 290, 8, 40, choices=0.4, single=0.3, first=0.4, shares=SLOW, rate=5e-4, final_rate=5e-4 * 0.2**0.725),
    Stage("see again", 1500, tokens=128, shares={}, rate=1e-3, final_rate=5e-5),
    Stage("settle", 300, 8, 40, choices=0.6, single=0.5, first=0.5, shares=LATE, rate=3e-4, final_rate=2e-5),
)


def stage_at(stages: tuple[Stage, ...], step: int) -> tuple[Stage, float]:
    """The stage of an optimiser step (from 0) and the learning rate in it, which warms up over 50 steps."""
    done = 0
    for stage in stages:
        if step < done + stage.steps:
            share = (step - done) / stage.steps
            rate = stage.rate * (stage.final_rate / stage.rate) ** share
            return stage, rate * min(1.0, (step - done + 1) / 50)
        done += stage.steps
    raise IndexError(f"the curriculum ends after {done} steps")


def for_gpu(stages: tuple[Stage, ...]) -> tuple[Stage, ...]:
    """The same steps with four times the tokens each, in one batch."""
    return tuple(replace(stage, tokens=4 * stage.tokens, batches=2) for stage in stages)


def described(stages: tuple[Stage, ...]) -> str:
    """The curriculum as a table, for the training card."""
    lines = [
        f"| {stage.name} | {stage.steps:,} | {stage.tokens:,} {'tokens' if stage.shares else 'pictures'} "
        f"| {stage.fewest}–{stage.most} | {TOKENS_PER_IMAGE // stage.every if stage.shares else TOKENS_PER_IMAGE} "
        f"| {stage.rate:g} → {stage.final_rate:g} |"
        for stage in stages
    ]
    head = "| stage | steps | of | pictures per prompt | tokens per picture | rate |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(lines)
