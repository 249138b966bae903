"""The `official` protocol: how MileBench's evaluator normalises texts and reads a choice out of an answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

MARKS = ';/[]"{}()=+\\_-><@`,?!'
PERIODS_REMOVED = 32
"""The evaluator removes no more periods than this from one text."""

_REGEX_CHARACTERS = "\\.^$*+?{}[]|()"
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_PERIOD_BEFORE_NO_DIGIT = re.compile(r"\.(?!\d)")


@lru_cache(maxsize=16384)
def normalise(text: str) -> str:
    """Normalise a text as MileBench's evaluator does before it compares answers.

    Each of `MARKS` is deleted where the text has it next to a space, or has digit-comma-digit anywhere;
    otherwise it becomes a space. Of the periods that no digit follows, the first 32 go. Periods after
    those, and quotes behind quotes and a space, make it not idempotent.

    Returns:
        The normalised, lower-case text.
    """
    text = text.replace("\n", " ").replace("\t", " ").strip()
    has_thousands = _DIGIT_COMMA_DIGIT.search(text) is not None
    cleaned = text
    for mark in MARKS:
        if mark in text:
            beside_space = f"{mark} " in text or f" {mark}" in text
            cleaned = cleaned.replace(mark, "" if beside_space or has_thousands else " ")
    cleaned = _PERIOD_BEFORE_NO_DIGIT.sub("", cleaned, count=PERIODS_REMOVED)
    return cleaned.strip("'").strip('"').strip().lower()


def choice_key(index: int) -> str:
    """The evaluator's key of the choice at `index`, from 0: A … Z, AA … AZ, then B followed by one character.

    From the 79th choice on, that character is no upper-case letter any more (`B[`, …), which makes
    some of those choices impossible to answer.
    """
    if index < 26:
        return chr(ord("A") + index)
    if index < 52:
        return "A" + chr(ord("A") + index - 26)
    return "B" + chr(ord("A") + index - 52)


def match_choice(answer: str, choices: Sequence[str]) -> str:
    """The key that MileBench's evaluator reads out of an answer.

    Args:
        answer: the prediction, normalised.
        choices: the choices, normalised; they are normalised once more here, as in the original.

    Returns:
        A key, or several letters joined, or the empty string; an empty answer is read as `C`.
    """
    if not answer:
        return "C"
    keys = [choice_key(index) for index in range(len(choices))]

    lettered = [normalise(f"{key} {choice}") for key, choice in zip(keys, choices, strict=True)]
    found = _first_in(answer, lettered)
    if found is not None:
        return found[0].upper()

    bare = [normalise(choice).replace(" ", "") for choice in choices]
    found = _first_in(answer.replace(" ", ""), bare)
    if found is not None:
        # The original compares with the choice escaped for a regular expression: "3.5" is never equal.
        for key, choice in zip(keys, bare, strict=True):
            if found.strip() == _escaped(choice):
                return key.upper()

    if len(answer) <= 2 and answer.upper() in keys:
        return answer.upper()
    return "".join(character.upper() for character in answer if character.upper() in keys)


def _first_in(text: str, phrases: Sequence[str]) -> str | None:
    """The phrase that occurs at the earliest place of the text; the first of the list when several begin there."""
    places = [(text.find(phrase), index) for index, phrase in enumerate(phrases)]
    place, index = min((pair for pair in places if pair[0] >= 0), default=(-1, -1))
    return phrases[index] if place >= 0 else None


def _escaped(phrase: str) -> str:
    return "".join("\\" + character if character in _REGEX_CHARACTERS else character for character in phrase)
