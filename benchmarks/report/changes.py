"""What compressing changed: answers won and lost against the full cache, and where they first differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.report.charts import Chart, by_column, make_chart
from benchmarks.report.groups import Budget, Group, Row
from lookm.answers import first_difference

if TYPE_CHECKING:
    import pandas
    import plotly.graph_objects as go

PLACES = ("1st or 2nd token", "3rd", "4th", "5th to 8th", "later")
_LAST = (2, 3, 4, 8)
_SAME, _REWORDED, _LOST, _WON = "rgba(140, 150, 162, 0.3)", "#d9a514", "#d6336c", "#2c9f6b"
_COLOURS = ("#7f1d4e", "#d6336c", "#e8785a", "#efb366", "#ecd08a")


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


def count_changes(group: Group) -> dict[tuple[str, str], Change]:
    """(run, column) → change, for every run but the full cache's; empty where there is no full cache."""
    if group.full is None:
        return {}
    answered = group.frame[group.frame.error.isna()]
    is_full = answered.run == group.full.run.name
    sample = ["dataset", "sample_id"]
    pairs = answered[~is_full].merge(
        answered[is_full][[*sample, "official", "answer_tokens"]], on=sample, suffixes=("", "_full")
    )
    pairs["place"] = list(map(first_difference, pairs.answer_tokens, pairs.answer_tokens_full))
    changes = {}
    for run, rows in pairs.groupby("run", sort=False):
        for column in group.columns:
            compared = rows[rows.dataset.isin([info.dataset for info in column.infos])]
            if len(compared):
                changes[str(run), column.name] = _change(compared)
    return changes


def _change(pairs: pandas.DataFrame) -> Change:
    changed = pairs[pairs.place.notna()]
    gain = changed.official - changed.official_full
    places = [sum(place > last for last in _LAST) for place in changed.place]
    counts = tuple(map(places.count, range(len(PLACES))))
    return Change(len(pairs), int((gain > 0).sum()), int((gain < 0).sum()), int((gain == 0).sum()), counts)


def change_chart(group: Group, changes: Mapping[tuple[str, str], Change], budget: Budget) -> Chart | None:
    """Answers won, lost, reworded and the same, as shares of the compared ones."""

    def draw(column: str) -> go.Figure | None:
        rows = _compared(group, changes, budget, column)
        kinds = {
            "lost": (_LOST, [change.lost for _, change in rows]),
            "won": (_WON, [change.won for _, change in rows]),
            "other answer, same score": (_REWORDED, [change.reworded for _, change in rows]),
            "same answer": (_SAME, [change.same for _, change in rows]),
        }
        return _stacked(rows, kinds)

    note = "Against the full cache's answers, token by token; scores of the official protocol."
    return make_chart("changes", "Answers won, lost and the same", note, ("column",), by_column(group, draw))


def place_chart(group: Group, changes: Mapping[tuple[str, str], Change], budget: Budget) -> Chart | None:
    """Where changed answers first differ from the full cache's."""

    def draw(column: str) -> go.Figure | None:
        rows = _compared(group, changes, budget, column)
        kinds = {
            text: (colour, [change.places[number] for _, change in rows])
            for number, (text, colour) in enumerate(zip(PLACES, _COLOURS, strict=True))
        }
        return _stacked(rows, kinds)

    note = (
        "Of all compared answers, those that differ, by the token at which they first do. The first token comes from "
        "the prefill, before anything is compressed."
    )
    return make_chart("places", "Where answers first differ", note, ("column",), by_column(group, draw))


def _compared(
    group: Group, changes: Mapping[tuple[str, str], Change], budget: Budget, column: str
) -> list[tuple[Row, Change]]:
    """Runs with a change in this column, the last one first, as bars are drawn from below."""
    rows = [(row, changes.get((row.run.name, column))) for row in reversed(group.compressing(budget))]
    return [(row, change) for row, change in rows if change is not None]


def _stacked(rows: Sequence[tuple[Row, Change]], kinds: Mapping[str, tuple[str, list[int]]]) -> go.Figure | None:
    """Horizontal bars of shares; each kind has its colour and one count a row."""
    import plotly.graph_objects as go

    if not rows:
        return None
    figure = go.Figure()
    sizes = [change.compared for _, change in rows]
    for text, (colour, counts) in kinds.items():
        figure.add_bar(
            x=[100 * count / size for count, size in zip(counts, sizes, strict=True)],
            y=[row.variant for row, _ in rows],
            customdata=list(zip(counts, sizes, strict=True)),
            orientation="h",
            name=text,
            marker={"color": colour},
            hovertemplate=f"%{{y}}: {text} %{{customdata[0]}} of %{{customdata[1]}}<extra></extra>",
        )
    longest = max(sum(counts[place] for _, counts in kinds.values()) / size for place, size in enumerate(sizes))
    figure.update_layout(
        barmode="stack",
        height=120 + 30 * len(rows),
        margin={"l": 96, "r": 16, "t": 8, "b": 44},
        xaxis={"title": {"text": "answers, %"}, "range": [0, min(100, 105 * longest) or 1]},
    )
    return figure
