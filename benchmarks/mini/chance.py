"""What one scores on MileBench-mini without looking: by guessing, or by always saying the same."""

from functools import cache

from benchmarks.milebench.rouge import rouge_l
from benchmarks.mini.tasks.objects import THINGS, difference
from benchmarks.mini.words import COLOURS, SHAPES


@cache
def constant_difference_score() -> float:
    """Expected ROUGE-L of the best constant sentence about a difference.

    Colours are interchangeable and so are shapes, so there are only two constants to try: one that tells of a changed
    colour and one that tells of a changed shape.
    """
    recoloured = [difference((c, s), (d, s)) for c, s in THINGS for d in COLOURS if d != c]
    reshaped = [difference((c, s), (c, t)) for c, s in THINGS for t in SHAPES if t != s]

    def expected(constant: str) -> float:
        halves = [sum(rouge_l(constant, truth) for truth in kind) / len(kind) for kind in (recoloured, reshaped)]
        return sum(halves) / 2

    return max(expected(recoloured[0]), expected(reshaped[0]))
