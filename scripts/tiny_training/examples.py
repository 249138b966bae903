"""One training example: a prompt as the evaluation makes it, with the tokens that are to be learnt."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from benchmarks.mini.pictures import Picture
from benchmarks.mini.sample import IMAGE, Question, Sample
from benchmarks.mini.taxonomy import MiniTask
from lookm.models.backbone import IMAGE_HERE, prompt_ids, separated
from lookm.models.tiny import TEMPLATE

from .architecture import TOKENS_PER_IMAGE

IGNORED = -100


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


def cached(encode: Callable[[str], list[int]]) -> Callable[[str], list[int]]:
    """`encode` that remembers; most pieces between images are a name or a line break."""
    return cache(encode)
