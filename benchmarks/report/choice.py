"""Which samples a report shows: those that tell most of the strategies."""

from __future__ import annotations

from itertools import zip_longest
from statistics import fmean

from benchmarks.report.scenes import Scene

_RIGHT = 0.5


def telling_samples(scene: Scene, budget: tuple[float, float] | None, n: int) -> list[tuple[str, str]]:
    """The samples that tell most of the strategies at one budget, each of another dataset.

    Only samples count that the full cache answers right. Those on which strategies with and without the text prior
    differ most come first, by turns won and lost by the prior; without such strategies, those on which all disagree.

    Args:
        scene: which runs.
        budget: α1 and α2 of the runs to look at.
        n: how many samples, at most as many as there are datasets.

    Returns:
        Pairs of dataset and sample id.
    """
    rows = [row for row in scene.at(budget) if not row.is_full]
    with_prior = {row.run.name for row in rows if getattr(row.built, "text_prior", "off") != "off"}
    without = {row.run.name for row in rows} - with_prior
    table = scene.table[scene.table.error.isna()]
    full = scene.full.run.name if scene.full else None
    won: list[tuple[float, int, str, str]] = []
    lost: list[tuple[float, int, str, str]] = []
    for place, ((dataset, sample), lines) in enumerate(table.groupby(["dataset", "sample_id"], sort=False)):
        scores = dict(zip(lines.run, lines.official, strict=True))
        if full is not None and scores.get(full, 0.0) < _RIGHT:
            continue
        prior, other = ([scores[run] for run in runs if run in scores] for runs in (with_prior, without))
        if prior and other:
            contrast = fmean(prior) - fmean(other)
        elif prior or other:
            contrast = 0.5 - abs(fmean(prior or other) - 0.5)
        else:
            continue
        (won if contrast > 0 else lost).append((-abs(contrast), place, str(dataset), str(sample)))
    chosen: dict[str, str] = {}
    for pair in zip_longest(sorted(won), sorted(lost)):
        for found in pair:
            if found is not None:
                chosen.setdefault(found[2], found[3])
    return list(chosen.items())[:n]
