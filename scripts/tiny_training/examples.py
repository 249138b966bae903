"""Training examples: prompts as the evaluation makes them, many questions each, and batches of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerFast

from benchmarks.mini.pictures import Picture
from benchmarks.mini.sample import IMAGE, Place, Request, Sample
from benchmarks.mini.seeds import training_rng
from benchmarks.mini.taxonomy import MiniTask, mini_task
from lookm.models.backbone import IMAGE_HERE, prompt_ids, separated
from lookm.models.tiny import TEMPLATE, TOKENS_PER_IMAGE

from .families import IMAGE_TOKEN, Family
from .pictures import training_pool
from .schedule import Stage

IGNORED = -100
FILMS = ("T-1", "T-3", "T-4", "S-3")
FEWEST_FRAMES = 6


@dataclass(frozen=True)
class Vocabulary:
    """How texts become ids: `encode` adds no special tokens and remembers."""

    encode: Callable[[str], list[int]]
    bos: int
    eos: int
    pad: int
    image: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerFast) -> Vocabulary:
        """What the batches need of a tokenizer."""
        return cls(
            encode=cache(lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]),
            bos=tokenizer.bos_token_id,
            eos=tokenizer.eos_token_id,
            pad=tokenizer.pad_token_id,
            image=int(tokenizer.vocab[IMAGE_TOKEN]),
        )


@dataclass(frozen=True)
class Example:
    """One prompt with its answers: `ids` (L,), and `targets` (L,), the next token where an answer is learnt."""

    ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Batch:
    """Right-padded: `ids`, `targets` (B, L), `positions` (B, L) or (3, B, L), `pixels` (images, 3, 32, 32) in -1 … 1.

    `every`: of so many neighbouring image tokens one is left, at the first one's position.
    """

    ids: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor
    pixels: torch.Tensor
    every: int = 1

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        moved = {name: getattr(self, name).to(device) for name in ("ids", "targets", "positions", "pixels")}
        return replace(self, **moved)


def example(
    task: MiniTask, sample: Sample, vocabulary: Vocabulary, with_choices: bool = True, place: Place = "last"
) -> Example:
    """The first question as the evaluation asks it, its answer, and the other questions and answers behind it."""
    ids, targets, pictures = [vocabulary.bos], [IGNORED], sample.shown(sample.questions[0], place)
    for number, question in enumerate(sample.questions):
        if number == 0:
            text = f"{task.instruction}\n{sample.prompt(question, place, with_choices)}"
        else:
            text = question.prompt(with_choices)
            pictures += question.pictures
        asked = separated(TEMPLATE.replace("{question}", text.replace(IMAGE, IMAGE_HERE)))
        prompt = prompt_ids(asked, vocabulary.encode, vocabulary.image, TOKENS_PER_IMAGE)
        answer = [*vocabulary.encode(question.sentence), vocabulary.eos]
        ids += prompt + answer
        targets += [IGNORED] * (len(prompt) - 1) + answer + [IGNORED]
    return Example(np.array(ids), np.array(targets), tuple(pictures))


def draw_example(rng: np.random.Generator, stage: Stage, images: int, vocabulary: Vocabulary) -> Example:
    """One example of a task drawn by the stage's shares."""
    codes, shares = zip(*stage.shares.items(), strict=True)
    task = mini_task(codes[int(rng.choice(len(codes), p=np.array(shares) / sum(shares)))])
    single = rng.random() < stage.single
    images = max(images, FEWEST_FRAMES) if task.task in FILMS else images
    questions = 1 if single else min(stage.questions, max(1, images - 1))
    case = int(rng.integers(1 << 30))
    request = Request(rng, training_pool(), images=images, questions=questions, case=case)
    with_choices = single or rng.random() < stage.choices
    place: Place = "first" if rng.random() < stage.first else "last"
    return example(task, task.make(request), vocabulary, with_choices, place)


def draw_batches(seed: int, step: int, stage: Stage, vocabulary: Vocabulary, family: Family) -> list[Batch]:
    """The examples of one step, in batches of similar length: a pure function of its arguments."""
    rng = training_rng(seed, step)
    images = int(rng.integers(stage.fewest, stage.most + 1))
    examples: list[Example] = []
    tokens = 0
    while tokens < stage.tokens:
        examples.append(draw_example(rng, stage, images, vocabulary))
        last = examples[-1]
        tokens += len(last.ids) - len(last.pictures) * (TOKENS_PER_IMAGE - TOKENS_PER_IMAGE // stage.every)
    examples.sort(key=lambda e: len(e.ids))
    size = -(-len(examples) // stage.batches)
    parts = [examples[i : i + size] for i in range(0, len(examples), size)]
    return [collate(part, vocabulary, family, stage.every) for part in parts]


def collate(examples: list[Example], vocabulary: Vocabulary, family: Family, every: int = 1) -> Batch:
    """Pad on the right, so that causal attention needs no mask, and thin the image tokens out."""
    positions = [family.positions(e.ids, vocabulary.image) for e in examples]  # (planes, L) each
    kept = [thinned(e.ids == vocabulary.image, every) for e in examples]
    length = max(int(keep.sum()) for keep in kept)
    ids = np.full((len(examples), length), vocabulary.pad)
    targets = np.full((len(examples), length), IGNORED)
    where = np.zeros((len(positions[0]), len(examples), length), dtype=np.int64)
    for row, (e, keep, position) in enumerate(zip(examples, kept, positions, strict=True)):
        n = int(keep.sum())
        ids[row, :n], targets[row, :n], where[:, row, :n] = e.ids[keep], e.targets[keep], position[:, keep]
    pictures = [picture for e in examples for picture in e.pictures]
    planes = torch.from_numpy(where[0] if len(where) == 1 else where)
    return Batch(torch.from_numpy(ids), torch.from_numpy(targets), planes, pixels_of(pictures), every)


def thinned(is_image: NDArray[np.bool_], every: int) -> NDArray[np.bool_]:
    """Which tokens stay when one of `every` neighbouring tokens of a picture does, the first."""
    number = np.cumsum(is_image) - 1  # of each image token, over the whole prompt
    kept: NDArray[np.bool_] = ~is_image | (number % every == 0)
    return kept


def pixels_of(pictures: list[Picture]) -> torch.Tensor:
    """(images, 3, 32, 32) in -1 … 1, also of no picture."""
    if not pictures:
        return torch.zeros(0, 3, 32, 32)
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1
