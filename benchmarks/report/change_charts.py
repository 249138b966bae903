"""Charts of the answers that compressing changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from benchmarks.report.changes import PLACES, Change, compared_rows
from benchmarks.report.charts import Chart, by_column, make_chart
from benchmarks.report.scenes import Row, Scene

if TYPE_CHECKING:
    import plotly.graph_objects as go

_SAME, _REWORDED, _LOST, _WON = "rgba(140, 150, 162, 0.3)", "#d9a514", "#d6336c", "#2c9f6b"
_PLACES = ("#7f1d4e", "#d6336c", "#e8785a", "#efb366", "#ecd08a")

Changes = Mapping[tuple[str, str], Change]
Budget = tuple[float, float] | None


def change_chart(scene: Scene, found: Changes, budget: Budget) -> Chart | None:
    """Answers won, lost, reworded and the same, as shares of the compared ones."""

    def draw(column: str) -> go.Figure | None:
        rows = _compared(scene, found, budget, column)
        kinds = {
            "lost": (_LOST, [change.lost for _, change in rows]),
            "won": (_WON, [change.won for _, change in rows]),
            "other answer, same score": (_REWORDED, [change.reworded for _, change in rows]),
            "same answer": (_SAME, [change.same for _, change in rows]),
        }
        return _stacked(rows, kinds)

    note = "Against the full cache's answers, token by token; scores of the official protocol."
    return make_chart("changes", "Answers won, lost and the same", note, "column", by_column(scene, draw))


def place_chart(scene: Scene, found: Changes, budget: Budget) -> Chart | None:
    """Where changed answers first differ from the full cache's."""

    def draw(column: str) -> go.Figure | None:
        rows = _compared(scene, found, budget, column)
        kinds = {
            text: (colour, [change.places[number] for _, change in rows])
            for number, (text, colour) in enumerate(zip(PLACES, _PLACES, strict=True))
        }
        return _stacked(rows, kinds)

    note = (
        "Of all compared answers, those that differ, by the token at which they first do. The first token comes from "
        "the prefill, before anything is compressed."
    )
    return make_chart("places", "Where answers first differ", note, "column", by_column(scene, draw))


def _compared(scene: Scene, found: Changes, budget: Budget, column: str) -> list[tuple[Row, Change]]:
    """Runs with a change in this column, the last one first, as bars are drawn from below."""
    rows = [(row, found.get((row.run.name, column))) for row in compared_rows(scene, budget)]
    return [(row, change) for row, change in reversed(rows) if change is not None]


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
    figure.update_layout(
        barmode="stack",
        height=120 + 30 * len(rows),
        margin={"l": 96, "r": 16, "t": 8, "b": 44},
        xaxis={"title": {"text": "answers, %"}},
    )
    return figure
