"""The report's charts, as plotly figures; colours of the page (ink, grid, ground) are set when they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.report.groups import Group, Row
from benchmarks.tables.cells import Cell
from benchmarks.tables.pareto import pareto_front
from benchmarks.tables.styles import style_of

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Chart:
    """One chart of several views.

    Attributes:
        name: unique in its group; title and note: above and below it, the note also says what is drawn.
        choices: what the views are a choice of, such as ("column",).
        views: the values of the choices, joined by " | " → figure as plotly's JSON; the first is shown at first.
    """

    name: str
    title: str
    note: str
    choices: tuple[str, ...]
    views: Mapping[str, dict[str, Any]]

    @property
    def options(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Each choice with its values."""
        values = list(zip(*(view.split(" | ") for view in self.views), strict=True))
        return tuple((name, tuple(dict.fromkeys(own))) for name, own in zip(self.choices, values, strict=True))


def make_chart(
    name: str, title: str, note: str, choices: tuple[str, ...], views: Mapping[str, go.Figure | None]
) -> Chart | None:
    """A chart of the views that there is something to show in; None where there is nothing."""
    shown = {key: figure.to_plotly_json() for key, figure in views.items() if figure is not None}
    for figure in shown.values():
        figure["layout"].pop("template", None)  # the page has its own
    return Chart(name, title, note, choices, shown) if shown else None


def column_names(group: Group) -> list[str]:
    """The columns, the mean first."""
    names = [column.name for column in group.columns]
    return [*names[-1:], *names[:-1]]


def by_column(group: Group, draw: Callable[[str], go.Figure | None]) -> dict[str, go.Figure | None]:
    """A view for each column, drawn by its name."""
    return {name: draw(name) for name in column_names(group)}


def curve_chart(group: Group) -> Chart | None:
    """Score against the nominal budget: lines where α1 = α2, single marks elsewhere."""
    import plotly.graph_objects as go

    compressing = [row for row in group.rows if not row.is_full and row.budget is not None]
    budgets = sorted({100 * (row.budget or 0) for row in compressing if _balanced(row)})
    if len(budgets) < 2:
        return None

    def draw(column: str) -> go.Figure | None:
        figure = go.Figure()
        for variant in dict.fromkeys(row.variant for row in compressing):
            own = [row for row in compressing if row.variant == variant and group.cell(row, column)]
            balanced = [row for row in own if _balanced(row)]
            others = [row for row in own if not _balanced(row)]
            if balanced:
                figure.add_scatter(**_points(group, balanced, column), mode="lines+markers")
            if others:
                dots = _points(group, others, column) | {"name": f"{variant}, α1 ≠ α2", "error_y": None}
                dots["marker"] = dots["marker"] | {"size": 5, "opacity": 0.5}
                figure.add_scatter(**dots, mode="markers", visible="legendonly")
        cells = [cell for row in group.rows if (cell := group.cell(row, column))]
        full = group.cell(group.full, column) if group.full else None
        if full:
            _level(figure, 100 * full.score, "full cache", "dash")
        if cells and cells[0].chance is not None:
            _level(figure, 100 * cells[0].chance, "chance", "dot")
        levels = [100 * cell.score for cell in cells] + [100 * (cell.chance or cell.score) for cell in cells[:1]]
        figure.update_layout(
            height=440,
            xaxis={"title": {"text": "nominal budget α1 + α2, % of the prompt"}, "type": "log", "tickvals": budgets},
            yaxis=_score_axis(levels),
        )
        figure.update_xaxes(ticktext=[f"{budget:g}" for budget in budgets])
        return figure

    note = (
        "Official protocol. Bars: the full cache's score plus the 95 % interval of the paired difference from it. "
        "Budgets with α1 ≠ α2 can be switched on in the legend. A text prior that keeps all text can keep more than "
        "the nominal budget: see the realised ones under Audit, and the bytes under Costs."
    )
    return make_chart("curves", "Score against budget", note, ("column",), by_column(group, draw))


def _balanced(row: Row) -> bool:
    return row.asked is not None and row.asked[0] == row.asked[1]


def _points(group: Group, rows: Sequence[Row], column: str) -> dict[str, Any]:
    """Budgets, scores and intervals of one variant, as arguments of `add_scatter`."""
    rows = sorted(rows, key=lambda row: row.budget or 0)
    cells = [cell for row in rows if (cell := group.cell(row, column))]
    style = style_of(rows[0].strategy)
    return {
        "x": [100 * (row.budget or 0) for row in rows],
        "y": [100 * cell.score for cell in cells],
        "error_y": _bars(cells),
        "name": rows[0].variant,
        "customdata": [[row.label, 100 * (cell.budget or 0)] for row, cell in zip(rows, cells, strict=True)],
        "hovertemplate": "%{customdata[0]}: %{y:.1f} %, kept %{customdata[1]:.1f} %<extra></extra>",
        "marker": {"color": style.colour, "symbol": style.symbol, "size": 8},
        "line": {"color": style.colour, "width": 2},
        "cliponaxis": False,
    }


def _bars(cells: Sequence[Cell]) -> dict[str, Any] | None:
    """Ends of the intervals around the scores, as far as scores go; None where a cell has none."""
    pairs = [(100 * cell.score, cell.interval) for cell in cells if cell.interval is not None]
    if len(pairs) < len(cells):
        return None
    return {
        "type": "data",
        "array": [min(100 * (bar.high - bar.difference), 100 - score) for score, bar in pairs],
        "arrayminus": [min(100 * (bar.difference - bar.low), score) for score, bar in pairs],
        "thickness": 1.2,
        "width": 3,
    }


def _score_axis(scores: Sequence[float]) -> dict[str, Any]:
    """A vertical axis of scores in %, which end at 0 and 100."""
    margin = max(4.0, 0.12 * (max(scores) - min(scores)))
    return {"title": {"text": "score, %"}, "range": [max(0, min(scores) - margin), min(100, max(scores) + margin)]}


def _level(figure: go.Figure, value: float, text: str, dash: str) -> None:
    colour = style_of("full").colour
    figure.add_hline(
        y=value,
        line={"width": 1.5, "dash": dash, "color": colour},
        annotation={"text": text, "font": {"size": 11, "color": colour}},
        annotation_position="top left" if value < 97 else "bottom left",
    )


def plane_chart(group: Group) -> Chart | None:
    """Scores over α1 and α2, a view for each strategy and column; one scale for all strategies of a column."""
    views: dict[str, go.Figure | None] = {}
    variants = sorted(dict.fromkeys(row.variant for row in group.rows), key=lambda name: name != "tp_pmerge")
    for column in column_names(group):
        planes: dict[str, dict[tuple[float, float], float]] = {}
        for row in group.rows:
            cell = group.cell(row, column)
            if cell and row.asked is not None and row.budget is not None:
                planes.setdefault(row.variant, {})[row.asked[:2]] = 100 * cell.score
        planes = {
            name: plane
            for name, plane in planes.items()
            if all(len(set(axis)) > 1 for axis in zip(*plane, strict=True))
        }
        every = [score for plane in planes.values() for score in plane.values()]
        for variant in variants:
            if len(planes.get(variant, {})) > 2:
                views[f"{variant} | {column}"] = _plane(planes[variant], min(every), max(every))
    note = "Official protocol. The scale is the same for all strategies of a column."
    return make_chart("plane", "The α1 : α2 plane", note, ("strategy", "column"), views)


def _plane(scores: Mapping[tuple[float, float], float], low: float, high: float) -> go.Figure:
    import plotly.graph_objects as go

    xs, ys = sorted({a for a, _ in scores}), sorted({b for _, b in scores})
    figure = go.Figure()
    figure.add_heatmap(
        z=[[scores.get((x, y)) for x in xs] for y in ys],
        x=[f"{x:g}" for x in xs],
        y=[f"{y:g}" for y in ys],
        zmin=low,
        zmax=high,
        colorscale="Viridis",
        texttemplate="%{z:.1f}",
        textfont={"size": 13},
        xgap=2,
        ygap=2,
        colorbar={"title": {"text": "score, %"}, "thickness": 12, "outlinewidth": 0},
        hovertemplate="α1 %{x}, α2 %{y}: %{z:.1f} %<extra></extra>",
    )
    figure.update_layout(
        height=420,
        xaxis={"title": {"text": "α1, recent window"}, "type": "category", "showgrid": False},
        yaxis={"title": {"text": "α2, important tokens"}, "type": "category", "showgrid": False},
    )
    return figure


def bytes_chart(group: Group) -> Chart | None:
    """Score against the bytes of a sample's cache, with the Pareto front."""
    note = "Official protocol. No run on the front is beaten by one that keeps fewer bytes or as many."
    return _cost_chart(
        group,
        ("kept_bytes", "Score against KV bytes", "KV cache of a sample, KiB", note),
        lambda cell: None if cell.kept_bytes is None else cell.kept_bytes / 1024,
    )


def time_chart(group: Group) -> Chart | None:
    """Score against the time of a decode step, for runs whose steps no other strategy shared."""
    partial = {
        f"{row.label} ({cell.timed} of {cell.n} samples)": None
        for row in group.rows
        if (cell := group.cell(row, group.columns[-1].name)) and 0 < cell.timed < cell.n
    }
    note = (
        "Official protocol. Times are of the machines that the runs were made on, and of what else these did. Only "
        "steps in which one strategy decoded alone count."
    )
    note += f" Over part of the samples: {', '.join(partial)}." if partial else ""
    about = ("decode_ms", "Score against decode time", "median decode step, ms", note)
    return _cost_chart(group, about, lambda cell: cell.decode_ms)


def _cost_chart(
    group: Group, about: tuple[str, str, str, str], cost_of: Callable[[Cell], float | None]
) -> Chart | None:
    import plotly.graph_objects as go

    name, title, axis, note = about

    def draw(column: str) -> go.Figure | None:
        cells = [(row, cell) for row in group.rows if (cell := group.cell(row, column))]
        points = [(row, cost, 100 * cell.score) for row, cell in cells if (cost := cost_of(cell)) is not None]
        if len(points) < 2:
            return None
        figure = go.Figure()
        front = pareto_front([(cost, score) for _, cost, score in points])
        figure.add_scatter(
            x=[*(cost for cost, _ in front), max(cost for _, cost, _ in points)],
            y=[*(score for _, score in front), front[-1][1]],
            mode="lines",
            name="Pareto front",
            line={"shape": "hv", "dash": "dot", "width": 1.5, "color": style_of("full").colour},
            hoverinfo="skip",
        )
        for variant in dict.fromkeys(row.variant for row, _, _ in points):
            own = [(row, cost, score) for row, cost, score in points if row.variant == variant]
            style = style_of(own[0][0].strategy)
            figure.add_scatter(
                x=[cost for _, cost, _ in own],
                y=[score for _, _, score in own],
                customdata=[row.label for row, _, _ in own],
                mode="markers",
                name=variant,
                marker={"color": style.colour, "symbol": style.symbol, "size": 10},
                hovertemplate="%{customdata}: %{y:.1f} % at %{x:.3g}<extra></extra>",
                cliponaxis=False,
            )
        figure.update_layout(
            height=420,
            xaxis={"title": {"text": axis}, "rangemode": "tozero"},
            yaxis=_score_axis([score for _, _, score in points]),
        )
        return figure

    return make_chart(name, title, note, ("column",), by_column(group, draw))
