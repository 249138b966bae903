"""What compressing changed: answers won and lost against the full cache, and where they first differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from benchmarks.report.scenes import Row, Scene

if TYPE_CHECKING:
    import pandas

PLACES = ("1st or 2nd token", "3rd", "4th", "5th to 8th", "later")
_LAST = (2, 3, 4, 8)


@dataclass(frozen=True)
class Change:
    """One run against the full cache in one column, over the samples that both answered.

    Attributes:
        compared: how many these are.
        won, lost: of them, those with a higher, a lower score (official protocol).
        reworded: those with another answer and the same score.
        places: of the changed answers, how many first differ where `PLACES` says.
    """

    compared: int
    won: int
    lost: int
    reworded: int
    places: tuple[int, ...]

    @property
    def same(self) -> int:
        """Answers that are the full cache's, token by token."""
        return self.compared - self.won - self.lost - self.reworded


def first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    """The first place, from 1, where two answers differ; None where they are the same.

    Example:
        >>> first_difference([4, 8, 2], [4, 8])
        3
    """
    pairs = enumerate(zip_longest(one, other), start=1)
    return next((place for place, (left, right) in pairs if left != right), None)


def changes(scene: Scene) -> dict[tuple[str, str], Change]:
    """(run, column) → change, for every run but the full cache's; empty where there is no full cache."""
    if scene.full is None:
        return {}
    table = scene.table[scene.table.error.isna()]
    parts = {str(run): rows for run, rows in table.groupby("run", sort=False)}
    full = _answers(parts.get(scene.full.run.name))
    found = {}
    for row in scene.rows:
        if row.is_full:
            continue
        own = _answers(parts.get(row.run.name))
        for column in scene.columns:
            keys = [key for key in own if key in full and key[0] in column.weights]
            if keys:
                found[row.run.name, column.name] = _change([(own[key], full[key]) for key in keys])
    return found


_Answer = tuple[float, tuple[int, ...]]


def _answers(rows: pandas.DataFrame | None) -> Mapping[tuple[str, str], _Answer]:
    """(dataset, sample) → score and tokens."""
    if rows is None:
        return {}
    columns = zip(rows.dataset, rows.sample_id, rows.official, rows.answer_tokens, strict=True)
    return {(str(dataset), str(sample)): (float(score), tuple(tokens)) for dataset, sample, score, tokens in columns}


def _change(pairs: Sequence[tuple[_Answer, _Answer]]) -> Change:
    won = lost = reworded = 0
    places = [0] * len(PLACES)
    for (score, tokens), (full_score, full_tokens) in pairs:
        place = first_difference(tokens, full_tokens)
        if place is None:
            continue
        places[sum(place > last for last in _LAST)] += 1
        won, lost = won + (score > full_score), lost + (score < full_score)
        reworded += score == full_score
    return Change(len(pairs), won, lost, reworded, tuple(places))


def compared_rows(scene: Scene, budget: tuple[float, float] | None) -> list[Row]:
    """The compressing runs at one budget."""
    return [row for row in scene.at(budget) if not row.is_full]
