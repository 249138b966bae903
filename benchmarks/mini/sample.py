"""What a task makes: pictures in a context, and questions about them. Nothing here touches a disk."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from benchmarks.mini.pictures import DigitPool, Picture

IMAGE = "{image}"  # stands in texts where the next picture goes; MileBench numbers them: {image#1}, {image#2} …
CHOICES = "\nChoice list: \n"
CUE = "\nYour answer is: "
LETTERS = "ABCDEFGH"
Place = Literal["last", "first"]  # where a question stands in its prompt
PLACES: tuple[Place, ...] = get_args(Place)


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

    def prompt(self, question: Question, place: Place = "last", with_choices: bool = True) -> str:
        """Context and question; choices and their cue end the prompt wherever the question stands."""
        asked = question.prompt(with_choices)
        if place == "last":
            return self.context + asked
        return question.text + "\n" + self.context + asked.removeprefix(question.text)

    def shown(self, question: Question, place: Place = "last") -> list[Picture]:
        """The pictures of such a prompt, in order."""
        if place == "last":
            return [*self.pictures, *question.pictures]
        return [*question.pictures, *self.pictures]


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
