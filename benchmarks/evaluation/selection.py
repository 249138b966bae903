"""Which samples of a dataset a run asks: the first ones, or a seeded random subset."""

from __future__ import annotations

import hashlib

SUBSETS = ("first", "random")


def select_positions(count: int, *, limit: int | None, subset: str = "first", seed: int = 0, dataset: str) -> list[int]:
    """Positions of the selected samples, ascending.

    A random subset is a function of seed, dataset and count alone, so that runs of all models and strategies are
    paired, and of nested sizes: the 20 samples of `limit=20` are among the 50 of `limit=50`. It is what
    `datasets.Dataset.shuffle(seed=subset_seed(seed, dataset))` puts first; that library takes longer to import than a
    tiny run's data take to read, so it is not asked here.

    Args:
        count: samples that the dataset has.
        limit: how many to take at most; None takes all.
        subset: "first" or "random".
        seed: the run's seed; each dataset draws with one of its own made from it.
        dataset: the dataset's name.
    """
    if limit is None or limit >= count:
        return list(range(count))
    if subset == "first":
        return list(range(limit))
    import numpy as np

    order = np.random.default_rng(subset_seed(seed, dataset)).permutation(count)
    return sorted(order[:limit].tolist())


def subset_seed(seed: int, dataset: str) -> int:
    """The seed with which a dataset's samples are shuffled, in [0, 2³²)."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{dataset}".encode()).digest()[:4], "big")
