"""The text normalisation of MileBench's evaluator, with its quirks."""

from __future__ import annotations

import re
from functools import lru_cache

MARKS = ';/[]"{}()=+\\_-><@`,?!'
PERIODS_REMOVED = 32
"""The evaluator removes no more periods than this from one text."""

_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_PERIOD_BEFORE_NO_DIGIT = re.compile(r"\.(?!\d)")


@lru_cache(maxsize=16384)
def normalise(text: str) -> str:
    """Normalise a text as MileBench's evaluator does before it compares answers.

    Each of `MARKS` is deleted where the text has it next to a space, or has digit-comma-digit anywhere;
    otherwise it becomes a space. Of the periods that no digit follows, the first 32 go. Periods after
    those, and quotes behind quotes and a space, make it not idempotent.

    Args:
        text: an answer, a choice or a prediction.

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
