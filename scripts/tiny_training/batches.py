"""Training batches: prompts in memory, several questions each, the loss on the answers alone."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.mini.pictures import Picture, digit_pool
from benchmarks.mini.sample import IMAGE, Question, Request, Sample
from benchmarks.mini.seeds import training_rng
from benchmarks.mini.taxonomy import MiniTask
from lookm.models.backbone import IMAGE_HERE, prompt_ids, separated
from lookm.models.tiny import TEMPLATE
from scripts.tiny_training.architecture import TOKENS_PER_IMAGE
from scripts.tiny_training.exercises import EXERCISES, task_or_exercise
from scripts.tiny_training.schedule import Stage

IGNORED = -100
FILMS = ("T-1", "T-3", "T-4", "S-3")
FEWEST_FRAMES = 6


@dataclass(frozen=True)
class Vocabulary:
    """How texts become ids: `encode` adds no special tokens."""

    encode: Callable[[str], list[int]]
    bos: int
    eos: int
    pad: int
    image: int


@dataclass(frozen=True)
class Example:
    """One prompt with its answers: `ids` (L,), and `targets` (L,), the next token where an answer is learnt."""

    ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Batch:
    """Right-padded: `ids` and `targets` (B, L), `pixels` (images, 3, 32, 32) in -1 … 1 or None."""

    ids: torch.Tensor
    targets: torch.Tensor
    pixels: torch.Tensor | None


def prompt_text(task: MiniTask, sample: Sample, question: Question, with_choices: bool = True) -> str:
    """The prompt that `build_prompt` makes when nothing has to be left out."""
    asked = question.prompt(with_choices)
    return f"{task.instruction}\n{sample.context}{asked}".replace(IMAGE, IMAGE_HERE)


def example(task: MiniTask, sample: Sample, vocabulary: Vocabulary, with_choices: bool = True) -> Example:
    """The first question as the evaluation asks it, its answer, and the other questions and answers behind it."""
    ids, targets, pictures = [vocabulary.bos], [IGNORED], list(sample.pictures)
    for number, question in enumerate(sample.questions):
        if number == 0:
            text = prompt_text(task, sample, question, with_choices)
        else:
            text = question.prompt(with_choices).replace(IMAGE, IMAGE_HERE)
        asked = separated(TEMPLATE.replace("{question}", text))
        prompt = prompt_ids(asked, vocabulary.encode, vocabulary.image, TOKENS_PER_IMAGE)
        answer = [*vocabulary.encode(question.sentence), vocabulary.eos]
        ids += prompt + answer
        targets += [IGNORED] * (len(prompt) - 1) + answer + [IGNORED]
        pictures += question.pictures
    return Example(np.array(ids), np.array(targets), tuple(pictures))


def draw_example(rng: np.random.Generator, stage: Stage, images: int, vocabulary: Vocabulary) -> Example:
    """One example of a task drawn by the stage's shares."""
    codes, shares = zip(*stage.shares.items(), strict=True)
    code = codes[int(rng.choice(len(codes), p=np.array(shares) / sum(shares)))]
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


def cached(encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
    """`encode` that remembers; most pieces between images are a name or a line break."""
    return cache(encode)
