"""The report's charts, as plotly figures; colours of the page (ink, grid, ground) are set when they are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.report.changes import compared_rows
from benchmarks.report.costs import cost_of, pareto_front
from benchmarks.report.palette import look_of
from benchmarks.report.scenes import Row, Scene

if TYPE_CHECKING:
    import plotly.graph_objects as go


@dataclass(frozen=True)
class Chart:
    """One chart of several views.

    Attributes:
        name: unique in its scene; title and note: above and below it, the note also says what is drawn.
        choice: what the views are a choice of, such as "column".
        views: the view's name → figure as plotly's JSON; the first is shown at the beginning.
    """

    name: str
    title: str
    note: str
    choice: str
    views: Mapping[str, dict[str, Any]]


def make_chart(name: str, title: str, note: str, choice: str, views: Mapping[str, go.Figure | None]) -> Chart | None:
    """A chart of the views that there is something to show in; None where there is nothing."""
    shown = {key: figure.to_plotly_json() for key, figure in views.items() if figure is not None}
    for figure in shown.values():
        figure["layout"].pop("template", None)  # the page has its own
    return Chart(name, title, note, choice, shown) if shown else None


def by_column(scene: Scene, draw: Callable[[str], go.Figure | None]) -> dict[str, go.Figure | None]:
    """A view for each column, drawn by its name, the mean first."""
    names = [column.name for column in scene.columns]
    return {name: draw(name) for name in [*names[-1:], *names[:-1]]}


def difference_chart(scene: Scene, budget: tuple[float, float] | None) -> Chart | None:
    """Differences from the full cache with their intervals, one line a strategy."""
    import plotly.graph_objects as go

    def draw(column: str) -> go.Figure | None:
        rows = [(row, cell) for row in compared_rows(scene, budget) if (cell := scene.cell(row, column))]
        found = [(row, cell.against_full) for row, cell in rows if cell.against_full is not None]
        if not found:
            return None
        figure = go.Figure()
        for row, interval in reversed(found):
            look = look_of(row.strategy)
            figure.add_scatter(
                x=[100 * interval.difference],
                y=[row.variant],
                error_x={
                    "type": "data",
                    "array": [100 * (interval.high - interval.difference)],
                    "arrayminus": [100 * (interval.difference - interval.low)],
                    "thickness": 2,
                    "width": 5,
                },
                marker={"color": look.colour, "symbol": look.marker, "size": 11},
                mode="markers",
                name=row.variant,
                hovertemplate="%{y}: %{x:+.1f} points<extra></extra>",
            )
        figure.add_vline(x=0, line={"width": 1.5, "dash": "dot", "color": look_of("full").colour})
        figure.update_layout(
            showlegend=False,
            height=70 + 34 * len(found),
            margin={"l": 96, "r": 16, "t": 8, "b": 44},
            xaxis={"title": {"text": "difference from the full cache, points"}, "zeroline": False},
        )
        return figure

    at = "" if budget is None else f" at α {budget[0]:g} + {budget[1]:g}"
    note = "Bars: 95 % intervals of the paired bootstrap within datasets. Those that hold 0 may be chance."
    return make_chart("differences", f"Against the full cache{at}", note, "column", by_column(scene, draw))


def curve_chart(scene: Scene) -> Chart | None:
    """Score against the nominal budget: lines where α1 = α2, single marks elsewhere."""
    import plotly.graph_objects as go

    variants = dict.fromkeys(row.variant for row in scene.rows if not row.is_full)
    if len({row.budget for row in scene.rows if not row.is_full and row.alpha1 == row.alpha2}) < 2:
        return None

    def draw(column: str) -> go.Figure | None:
        figure = go.Figure()
        for variant in variants:
            own = [row for row in scene.rows if row.variant == variant and scene.cell(row, column)]
            balanced = [row for row in own if row.alpha1 == row.alpha2]
            others = [row for row in own if row.alpha1 != row.alpha2]
            if balanced:
                figure.add_scatter(**_points(scene, balanced, column), mode="lines+markers")
            if others:
                dots = _points(scene, others, column) | {"name": f"{variant}, α1 ≠ α2", "error_y": None}
                dots["marker"] = dots["marker"] | {"size": 5, "opacity": 0.5}
                figure.add_scatter(**dots, mode="markers", visible="legendonly")
        full = scene.full and scene.cell(scene.full, column)
        if full:
            _level(figure, 100 * full.score, "full cache", "dash")
        chance = next(item.chance for item in scene.columns if item.name == column)
        if chance is not None:
            _level(figure, 100 * chance, "chance", "dot")
        budgets = sorted({100 * row.budget for row in scene.rows if not row.is_full and row.alpha1 == row.alpha2})
        figure.update_layout(
            height=440,
            xaxis={"title": {"text": "nominal budget α1 + α2, % of the prompt"}, "type": "log", "tickvals": budgets},
            yaxis={"title": {"text": "score, %"}},
        )
        figure.update_xaxes(ticktext=[f"{budget:g}" for budget in budgets])
        return figure

    note = (
        "Official protocol. Bars: the full cache's score plus the 95 % interval of the paired difference from it. "
        "Budgets with α1 ≠ α2 can be switched on in the legend. A text prior that keeps all text can keep more than "
        "the nominal budget: see the realised ones under Audit, and the bytes under Costs."
    )
    return make_chart("curves", "Score against budget", note, "column", by_column(scene, draw))


def _points(scene: Scene, rows: Sequence[Row], column: str) -> dict[str, Any]:
    """Budgets, scores and intervals of one variant, as arguments of `add_scatter`."""
    rows = sorted(rows, key=lambda row: row.budget)
    cells = [cell for row in rows if (cell := scene.cell(row, column))]
    look = look_of(rows[0].strategy)
    bars = [cell.against_full for cell in cells]
    error = None
    if all(bars):
        known = [bar for bar in bars if bar is not None]
        error = {
            "type": "data",
            "array": [100 * (bar.high - bar.difference) for bar in known],
            "arrayminus": [100 * (bar.difference - bar.low) for bar in known],
            "thickness": 1.2,
            "width": 3,
        }
    return {
        "x": [100 * row.budget for row in rows],
        "y": [100 * cell.score for cell in cells],
        "error_y": error,
        "name": rows[0].variant,
        "customdata": [[row.label, 100 * (cell.budget or 0)] for row, cell in zip(rows, cells, strict=True)],
        "hovertemplate": "%{customdata[0]}: %{y:.1f} %, kept %{customdata[1]:.1f} %<extra></extra>",
        "marker": {"color": look.colour, "symbol": look.marker, "size": 8},
        "line": {"color": look.colour, "width": 2},
    }


def _level(figure: go.Figure, value: float, text: str, dash: str) -> None:
    colour = look_of("full").colour
    figure.add_hline(
        y=value,
        line={"width": 1.5, "dash": dash, "color": colour},
        annotation={"text": text, "font": {"size": 11, "color": colour}},
        annotation_position="top left",
    )


def plane_chart(scene: Scene) -> Chart | None:
    """Mean score over α1 and α2, a view for each strategy; one scale for all."""
    import plotly.graph_objects as go

    column = scene.columns[-1].name
    scores: dict[str, dict[tuple[float, float], float]] = {}
    for row in scene.rows:
        cell = scene.cell(row, column)
        if cell and row.alpha1 is not None and row.alpha2 is not None:
            scores.setdefault(row.variant, {})[row.alpha1, row.alpha2] = 100 * cell.score
    planes = {
        variant: found
        for variant, found in scores.items()
        if len({a for a, _ in found}) > 1 and len({b for _, b in found}) > 1 and len(found) > 2
    }
    if not planes:
        return None
    every = [value for found in planes.values() for value in found.values()]

    def draw(found: Mapping[tuple[float, float], float]) -> go.Figure:
        xs, ys = sorted({a for a, _ in found}), sorted({b for _, b in found})
        values = [[found.get((x, y)) for x in xs] for y in ys]
        figure = go.Figure()
        figure.add_heatmap(
            z=values,
            x=[f"{x:g}" for x in xs],
            y=[f"{y:g}" for y in ys],
            zmin=min(every),
            zmax=max(every),
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

    note = f"Official protocol, {column}. The scale is the same for all strategies."
    views = {variant: draw(found) for variant, found in planes.items()}
    order = sorted(views, key=lambda variant: variant != "tp_pmerge")
    return make_chart("plane", "The α1 : α2 plane", note, "strategy", {name: views[name] for name in order})


def cost_chart(scene: Scene, quantity: str) -> Chart | None:
    """Score against what a cache costs, with the Pareto front.

    Args:
        scene: which runs.
        quantity: "kept_bytes" or "decode_ms".
    """
    import plotly.graph_objects as go

    words = {"kept_bytes": "KV cache of a sample, KiB", "decode_ms": "median decode step, ms"}
    titles = {"kept_bytes": "Score against KV bytes", "decode_ms": "Score against decode time"}

    def draw(column: str) -> go.Figure | None:
        datasets = next(item.weights for item in scene.columns if item.name == column)
        points = []
        for row in scene.rows:
            cell, cost = scene.cell(row, column), cost_of(scene, row, list(datasets), quantity)
            if cell and cost is not None:
                points.append((row, cost / 1024 if quantity == "kept_bytes" else cost, 100 * cell.score))
        if len(points) < 2:
            return None
        figure = go.Figure()
        front = pareto_front([(cost, score) for _, cost, score in points])
        ends = max(cost for _, cost, _ in points)
        figure.add_scatter(
            x=[*(cost for cost, _ in front), ends],
            y=[*(score for _, score in front), front[-1][1]],
            mode="lines",
            name="Pareto front",
            line={"shape": "hv", "dash": "dot", "width": 1.5, "color": look_of("full").colour},
            hoverinfo="skip",
        )
        for variant in dict.fromkeys(row.variant for row, _, _ in points):
            own = [(row, cost, score) for row, cost, score in points if row.variant == variant]
            look = look_of(own[0][0].strategy)
            figure.add_scatter(
                x=[cost for _, cost, _ in own],
                y=[score for _, _, score in own],
                customdata=[row.label for row, _, _ in own],
                mode="markers",
                name=variant,
                marker={"color": look.colour, "symbol": look.marker, "size": 10},
                hovertemplate="%{customdata}: %{y:.1f} % at %{x:.3g}<extra></extra>",
            )
        figure.update_layout(
            height=420,
            xaxis={"title": {"text": words[quantity]}, "rangemode": "tozero"},
            yaxis={"title": {"text": "score, %"}},
        )
        return figure

    note = "Official protocol. No run on the front is beaten by one that costs less or the same."
    if quantity == "decode_ms":
        note += " Times are of the machines that the runs were made on, and of what else these did."
    return make_chart(quantity, titles[quantity], note, "column", by_column(scene, draw))
