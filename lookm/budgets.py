"""What a budget means: how it is split into recent and important tokens, and divided among the layers of a prompt."""

from collections.abc import Sequence
from math import inf, nan
from numbers import Real

from lookm.errors import LookmError

_ROUNDING = 1e-9  # added before rounding down, so that 0.29 · 100 is 29


def split_budget(budget: object, alpha1: float, alpha2: float) -> tuple[float | int, float, float]:
    """A budget and its α1 and α2 as one triple of numbers stands for all that mean the same.

    Args:
        budget: a share of the prompt, above 0 and up to 1, or a whole number of tokens above 1.
        alpha1, alpha2: their ratio splits it.

    Returns:
        The budget, a float for a share and an int for tokens, and α1 and α2, whose sum is the share, or 1 for tokens.

    Raises:
        LookmError: for another budget, or α1 = α2 = 0.
    """
    value = float(str(budget)) if isinstance(budget, Real) and not isinstance(budget, bool) else nan
    if not 0 < value < inf or (value > 1 and value % 1):
        raise LookmError(
            f"budget={budget!r} does not fit; choose a share of the prompt above 0 and up to 1, such as 0.2, "
            "or a whole number of tokens above 1, such as 256"
        )
    if not alpha1 + alpha2:
        raise LookmError(f"budget={budget} is split as alpha1 : alpha2, which are both 0; give one of them")
    scale = min(value, 1) / (alpha1 + alpha2)
    return int(value) if value > 1 else value, round(alpha1 * scale, 12), round(alpha2 * scale, 12)


def budget_sizes(budget: float | int, alpha1: float, alpha2: float, length: int) -> tuple[int, int]:
    """M recent and N important tokens of a prompt of L tokens: int(budget · L) or so many tokens, N rounded down.

    Together at least one token and at most L.
    """
    total = min(length, max(1, int(budget * length + _ROUNDING) if budget <= 1 else int(budget)))
    important = int(total * alpha2 / (alpha1 + alpha2) + _ROUNDING)
    return total - important, important


def apportion(weights: Sequence[float], total: int, lowest: int, highest: int) -> list[int]:
    """Whole numbers in proportion to weights, each from `lowest` to `highest`, whose sum is `total`.

    What exceeds a bound goes to the others in proportion; what rounding leaves goes to the largest remainders, the
    earlier first. Weights that are all 0 count as equal.

    Args:
        weights: not negative, one a layer.
        total: from len(weights) · lowest to len(weights) · highest.
    """
    shares = [0.0] * len(weights)
    free = set(range(len(weights)))
    rest = float(total)
    while free:
        mass = sum(weights[i] for i in free)
        trial = {i: rest * weights[i] / mass if mass > 0 else rest / len(free) for i in free}
        over = sum(max(0.0, share - highest) for share in trial.values())
        under = sum(max(0.0, lowest - share) for share in trial.values())
        bounded = {i for i in free if (trial[i] > highest if over >= under else trial[i] < lowest)}
        for i in bounded or free:
            shares[i] = min(max(trial[i], lowest), highest)
        rest -= sum(shares[i] for i in bounded)
        free = free - bounded if bounded else set()
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(counts)), key=lambda i: (counts[i] - shares[i], i))
    while sum(counts) < total:
        for i in by_remainder:
            if counts[i] < highest and sum(counts) < total:
                counts[i] += 1
    return counts
