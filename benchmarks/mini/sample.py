"""What a task makes: pictures in a context, and questions about them. Nothing here touches a disk."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from benchmarks.mini.pictures import DigitPool, Picture

IMAGE = "{image}"  # stands in texts where the next picture goes; MileBench numbers them: {image#1}, {image#2} …
CHOICES = "\nChoice list: \n"
CUE = "\nYour answer is: "
LETTERS = "ABCDEFGH"


@dataclass(frozen=True)
class Question:
    """One question with the sentence that answers it.

    `sentence` is what the model should say, `response` what the annotation holds (the same, or the needle in it),
    `pictures` belong to the placeholders in `text`.
    """

    text: str
    sentence: str
    response: str
    choices: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    def prompt(self, with_choices: bool = True) -> str:
        """The question as MileBench asks it: the text and, if there are choices, their list and a cue."""
        if not (self.choices and with_choices):
            return self.text
        lines = [f"{LETTERS[i]}. {choice}" for i, choice in enumerate(self.choices)]
        return self.text + CHOICES + "\n".join(lines) + CUE


@dataclass(frozen=True)
class Sample:
    """A context with one placeholder per picture, and the questions that can be asked about it."""

    context: str
    pictures: tuple[Picture, ...]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Request:
    """What to make: how many pictures and questions; `case` runs through the answers so that they are balanced."""

    rng: np.random.Generator
    pool: DigitPool
    images: int
    questions: int = 1
    case: int = 0

    def turn(self, kinds: int, question: int) -> int:
        """Which of `kinds` equally frequent answers `question` gets: by `case` for the first, else by chance."""
        return self.case % kinds if question == 0 else int(self.rng.integers(kinds))

    def options(self, right: str, wrong: list[str], count: int, question: int, kinds: int = 1) -> tuple[str, ...]:
        """`right` among `count - 1` of `wrong`, in an order whose place for `right` is balanced over cases."""
        others = [wrong[i] for i in self.rng.permutation(len(wrong))[: count - 1]]
        place = self.case // kinds % count if question == 0 else int(self.rng.integers(count))
        return (*others[:place], right, *others[place:])


QuestionType = Literal["open-ended", "multi-choice"]
