"""Answers, token by token; cheap to import, for those who compare runs without a model."""

from collections.abc import Sequence


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """The place, counted from 1, of the first token in which two answers differ; None where they are the same.

    Example:
        >>> first_difference([4, 8, 2], [4, 8])
        3
    """
    for place, (a, b) in enumerate(zip(ours, theirs, strict=False), start=1):
        if a != b:
            return place
    return None if len(ours) == len(theirs) else min(len(ours), len(theirs)) + 1
