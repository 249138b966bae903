"""The `repaired` protocol: what an answer plainly means, where MileBench's evaluator misreads it.

An empty answer is wrong; choices with special characters can be right; "The answer is B" is B; of several choices
in the answer the longest wins; needles may stand next to punctuation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_OUTER = " .,:;!?\"'`*()[]"
_END = r"(?P<end>[\"')\]*]+|\s*(?:[.,:;!?]|$))?"
_LEADING = re.compile(r"[\s\"'(\[*]*(?P<key>[A-Za-z]{1,2})(?:[)\]*.:]+(?=\s|$)|\s*$)\s*(?P<rest>.*)", re.DOTALL)
_KEYWORD = r"\b(?i:answer|option|choice)"
_COPULA = r"(?i:\s+(?:is|was|would\s+be|should\s+be|must\s+be)\b\s*:?|\s*:)"
_KEY = r"[\"'(\[*]*(?P<key>[A-Za-z]{1,2})(?!\w|'\w)"
_STATED = re.compile(rf"{_KEYWORD}{_COPULA}\s*(?i:(?:option|choice)\s+)?{_KEY}{_END}")
_NAMED = re.compile(rf"{_KEYWORD}\s+{_KEY}{_END}")
_LONE = re.compile(rf"(?<![\w'])(?P<key>[A-Z])(?!\w|'\w){_END}")
_WORDS_TOO = {"A", "I"}


def find_choice(answer: str, choices: Sequence[str], *, lettered: bool = True) -> int | None:
    """The index of the choice that an answer means.

    The first of these that there is: the answer is a choice, or is one after a letter; a letter followed by its own
    choice ("B. Yes"); a leading letter ("(B)"); a stated one ("The answer is B"); the longest choice in the
    answer, with its punctuation or without; the only letter that stands alone.

    Args:
        lettered: whether the prompt showed letters before the choices (GPR1200's does not).

    Returns:
        The index, or None where the answer is empty or means no choice, or no single one.
    """
    text, options = _plain(answer), [_plain(choice) for choice in choices]
    if not text:
        return None
    whole = _index_of(text, options)
    if whole is not None:
        return whole
    if not lettered:
        return _longest(text, options)
    leading = _LEADING.match(answer)
    readings = (
        lambda: _index_of(_plain(leading["rest"]), options) if leading else None,
        lambda: _with_letter(text, options),
        lambda: _letter_index(leading["key"], len(options)) if leading else None,
        lambda: _stated_letter(answer, len(options)),
        lambda: _longest(text, options),
        lambda: _lone_letter(answer, len(options)),
    )
    return next((index for reading in readings if (index := reading()) is not None), None)


def contains(text: str, phrase: str) -> bool:
    """Whether a phrase stands in a text by itself: not inside a longer word or number; case does not count.

    Args:
        phrase: for example a needle; an empty one stands nowhere.
    """
    return _place(_plain(text), _plain(phrase)) is not None


def _plain(text: str) -> str:
    lowered = " ".join(text.lower().split())
    return lowered.strip(_OUTER) or lowered


def _words(text: str) -> str:
    return " ".join(re.findall(r"\d+(?:[.,]\d+)+|\w+", text))


def _index_of(text: str, options: Sequence[str]) -> int | None:
    return options.index(text) if text in options else None


def _place(text: str, phrase: str) -> int | None:
    if not phrase or phrase not in text:
        return None
    before = r"(?<!\w)(?<!\d[.,])" if re.match(r"\w", phrase) else ""
    after = r"(?!\w)(?![.,]\d)" if re.match(r"\w", phrase[-1]) else ""
    found = re.search(before + re.escape(phrase) + after, text)
    return found.start() if found else None


def _longest(text: str, options: Sequence[str]) -> int | None:
    """The choice with the most words in the text; of equally long ones, one whose punctuation is there too."""
    bare_text = _words(text)
    found = []
    for index, option in enumerate(options):
        bare = _words(option)
        place = _place(text, option)
        bare_place = _place(bare_text, bare)
        if place is not None or bare_place is not None:
            found.append((-len(bare), place is None, -len(option), place or bare_place or 0, index))
    return min(found)[-1] if found else None


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else _letter(index // 26 - 1) + _letter(index % 26)


def _letter_index(key: str, count: int) -> int | None:
    index = 0
    for character in key.lower():
        index = index * 26 + ord(character) - ord("a") + 1
    return index - 1 if index <= count else None


def _with_letter(text: str, options: Sequence[str]) -> int | None:
    """The first letter with its own choice behind it; a list of all choices means the first, as in MileBench."""
    found = []
    for index, option in enumerate(options):
        if option and option in text:
            match = re.search(rf"(?<![\w'])\(?{_letter(index)}[).:\]]+\s*{re.escape(option)}(?!\w)(?![.,]\d)", text)
            if match:
                found.append((match.start(), index))
    return min(found)[1] if found else None


def _stated_letter(answer: str, count: int) -> int | None:
    for match in _STATED.finditer(answer):
        index = _letter_index(match["key"], count)
        if index is not None and _is_letter_not_word(match):
            return index
    for match in _NAMED.finditer(answer):
        index = _letter_index(match["key"], count)
        if index is not None and (match["key"].isupper() or match["end"] is not None):
            return index
    return None


def _lone_letter(answer: str, count: int) -> int | None:
    found = {_letter_index(match["key"], count) for match in _LONE.finditer(answer) if _is_letter_not_word(match)}
    found.discard(None)
    return found.pop() if len(found) == 1 else None


def _is_letter_not_word(match: re.Match[str]) -> bool:
    # "A" and "I" are words, and so may be any letter in lower case, unless punctuation or the end follows.
    key = match["key"]
    return match["end"] is not None or (key.isupper() and key not in _WORDS_TOO)
