"""Random numbers of MileBench-mini: evaluation and training draw from seeds that cannot meet."""

import numpy as np

from lookm.errors import LookmError

EVALUATION_SEEDS = range(0, 1_000_000)


def evaluation_rng(seed: int, task: int, sample: int) -> np.random.Generator:
    """The generator of one evaluation sample.

    Raises:
        LookmError: `seed` is outside the evaluation's range.
    """
    if seed not in EVALUATION_SEEDS:
        last = EVALUATION_SEEDS[-1]
        raise LookmError(f"seed {seed} is not one of the evaluation's: give one from 0 to {last}")
    return np.random.default_rng([seed, task, sample])


def training_rng(seed: int, step: int) -> np.random.Generator:
    """The generator of one training step.

    Raises:
        LookmError: `seed` belongs to the evaluation.
    """
    if seed < len(EVALUATION_SEEDS):
        first = len(EVALUATION_SEEDS)
        raise LookmError(f"seed {seed} is kept for the evaluation: train with one of {first} or more")
    return np.random.default_rng([seed, step])
