"""How a budget of tokens is divided among the layers of a prompt."""

from collections.abc import Sequence


def apportion(weights: Sequence[float], total: int, lowest: int, highest: int) -> list[int]:
    """Whole numbers in proportion to weights, each from `lowest` to `highest`, whose sum is `total`.

    What exceeds a bound goes to the others in proportion; what rounding leaves goes to the largest remainders, the
    earlier first. Weights that are all 0 count as equal.

    Args:
        weights: not negative, one a layer.
        total: from len(weights) · lowest to len(weights) · highest.
        lowest: of each.
        highest: of each.
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
