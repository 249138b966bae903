"""Training batches: examples of a stage, drawn from the seed and the step alone, in parts of similar length."""

from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.mini.pictures import digit_pool
from benchmarks.mini.sample import Request
from benchmarks.mini.seeds import training_rng

from .examples import IGNORED, Example, Vocabulary, example
from .exercises import EXERCISES, task_or_exercise
from .recall import RECALLS
from .schedule import Stage

FILMS = ("T-1", "T-3", "T-4", "S-3")
FEWEST_FRAMES = 6


@dataclass(frozen=True)
class Batch:
    """Right-padded: `ids` and `targets` (B, L), `pixels` (images, 3, 32, 32) in -1 … 1 or None."""

    ids: torch.Tensor
    targets: torch.Tensor
    pixels: torch.Tensor | None


def draw_example(rng: np.random.Generator, stage: Stage, images: int, vocabulary: Vocabulary) -> Example:
    """One example of a task drawn by the stage's shares."""
    codes, shares = zip(*stage.shares.items(), strict=True)
    code = codes[int(rng.choice(len(codes), p=np.array(shares) / sum(shares)))]
    if code in RECALLS:
        return RECALLS[code](rng, images, vocabulary)
    single = code not in EXERCISES and rng.random() < stage.single
    if code in EXERCISES:
        images, questions = EXERCISES[code].fewest, stage.questions
    else:
        images = max(images, FEWEST_FRAMES) if code in FILMS else images
        questions = 1 if single else min(stage.questions, max(1, images - 1))
    task = task_or_exercise(code)
    case = int(rng.integers(1 << 30))
    request = Request(rng, digit_pool("train"), images=images, questions=questions, case=case)
    return example(task, task.make(request), vocabulary, with_choices=single or rng.random() < stage.choices)


def draw_batches(seed: int, step: int, stage: Stage, vocabulary: Vocabulary) -> list[Batch]:
    """The examples of one step, in batches of similar length: a pure function of its arguments."""
    rng = training_rng(seed, step)
    images = int(rng.integers(stage.fewest, stage.most + 1))
    examples: list[Example] = []
    while sum(len(e.ids) for e in examples) < stage.tokens:
        examples.append(draw_example(rng, stage, images, vocabulary))
    examples.sort(key=lambda e: len(e.ids))
    size = -(-len(examples) // stage.batches)
    return [collate(examples[i : i + size], vocabulary.pad) for i in range(0, len(examples), size)]


def collate(examples: list[Example], pad: int) -> Batch:
    """Pad on the right; causal attention then needs no mask."""
    length = max(len(e.ids) for e in examples)
    ids = np.full((len(examples), length), pad)
    targets = np.full((len(examples), length), IGNORED)
    for row, e in enumerate(examples):
        ids[row, : len(e.ids)] = e.ids
        targets[row, : len(e.targets)] = e.targets
    pictures = [picture for e in examples for picture in e.pictures]
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1 if pictures else None
    return Batch(torch.from_numpy(ids), torch.from_numpy(targets), pixels)
