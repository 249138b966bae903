"""How many samples a paired comparison of two strategies needs, before any of them is asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import NormalDist, variance

DISAGREEMENT = 0.2
"""Assumed share of samples on which two strategies score differently, where no pair of runs tells."""
LEVEL = 0.95
POWER = 0.8
_FEWEST = 30  # below, the normal approximation means little


@dataclass(frozen=True)
class Resolution:
    """Samples that resolve a difference, and what the number rests on.

    Attributes:
        samples: of one comparison, in all datasets together.
        variance: of the paired differences of scores.
        pairs: measured pairs behind the variance; 0 where it is assumed.
    """

    samples: int
    variance: float
    pairs: int


def samples_needed(difference: float, variance: float, *, level: float = LEVEL, power: float = POWER) -> int:
    """Paired samples at which a true difference is found with some power, two-sided.

    n = (z₁₋α⸝₂ + z_power)² σ² / δ², for the mean of paired differences (for instance Chow, Shao and Wang, Sample Size
    Calculations in Clinical Research, 2008, section 3.1).

    Args:
        difference: δ, of mean scores, in (0, 1].
        variance: σ², of the differences of single samples' scores.
        level: 1 - α.
        power: probability of finding it.
    """
    normal = NormalDist()
    quantiles = normal.inv_cdf(0.5 + level / 2) + normal.inv_cdf(power)
    return max(_FEWEST, ceil(quantiles**2 * variance / difference**2 - 1e-9))


def resolve(
    difference: float, measured: Sequence[float] = (), *, level: float = LEVEL, power: float = POWER
) -> Resolution:
    """The smallest subset that resolves a difference.

    Args:
        difference: δ, of mean scores, in (0, 1].
        measured: paired differences of samples' scores from earlier runs; with fewer than 30 of them σ² is assumed to
            be that of scores 0 and 1 which disagree on a share `DISAGREEMENT` of the samples.
        level: 1 - α.
        power: probability of finding it.
    """
    pairs = len(measured) if len(measured) >= _FEWEST else 0
    assumed = max(DISAGREEMENT, difference) - difference**2
    spread = variance(measured) if pairs else assumed
    return Resolution(samples_needed(difference, spread, level=level, power=power), spread, pairs)
