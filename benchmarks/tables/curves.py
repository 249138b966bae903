"""Budget curves: scores over the budget or over its division, one panel per dataset, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.evaluation.cells import Column
from benchmarks.files import replacing, write_text, writing
from benchmarks.tables.cells import Cell
from benchmarks.tables.experiments import Row
from benchmarks.tables.reproduction import Reproduction
from benchmarks.tables.styles import style_of
from lookm.errors import LookmError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Axis = Literal["nominal", "realised", "split"]
ENDINGS = (".png", ".svg")
_LABELS: dict[Axis, str] = {
    "nominal": "nominal budget α1 + α2, % (log scale)",
    "realised": "realised budget: bytes kept, % (log scale)",
    "split": "recent window's share of the budget, %",
}
# Points of several strategies at one place are drawn beside each other: log scales by a factor, others by a distance.
_SHIFTS: dict[Axis, float] = {"nominal": 0.018, "realised": 0.0, "split": 0.9}
_LEGEND = {"full": "full cache", "interval": "95 % interval of the difference\nfrom the full cache, around its line"}


@dataclass(frozen=True)
class Point:
    """One run in one panel: where it stands, its score in %, and the ends of its interval in % (or None)."""

    x: float
    score: float
    low: float | None = None
    high: float | None = None


def curve_points(result: Reproduction, strategy: str, column: Column, axis: Axis) -> list[Point]:
    """The points of one strategy's curve, from left to right.

    The interval is that of the paired difference from the full cache, drawn around the full cache's score: where it
    does not reach the full cache's line, the difference excludes zero. Scores end at 0 and 100, and so do its ends.

    Args:
        axis: "nominal" (α1 + α2, in %), "realised" (mean share of the bytes kept, in %) or "split" (α1's share of the
            budget, in %).
    """
    full = result.cells.get((result.full, column.name)) if result.full else None
    points = []
    for row in result.experiment.rows:
        cell = result.cells.get((row, column.name))
        if row.strategy != strategy or cell is None or row.alpha1 is None or (row.budget or 0) > 1:
            continue
        point = Point(_place(row, cell, axis), 100 * cell.score)
        if cell.interval is not None and full is not None:
            ends = (100 * min(max(full.score + end, 0.0), 1.0) for end in (cell.interval.low, cell.interval.high))
            point = Point(point.x, point.score, *ends)
        points.append(point)
    return sorted(points, key=lambda point: point.x)


def draw_curves(result: Reproduction, axis: Axis) -> Figure:
    """The figure: a panel for each column, a curve for each strategy, the full cache as a line.

    Raises:
        LookmError: there is nothing to draw yet.
    """
    if not result.cells:
        raise LookmError(f"no run of {result.experiment.name} is there yet; fill it: {result.experiment.command()}")
    from matplotlib.figure import Figure

    strategies = [name for name in dict.fromkeys(row.strategy for row in result.experiment.rows) if name != "full"]
    wide = 1 if len(result.columns) == 1 else 2 if len(result.columns) <= 4 else 3
    deep = -(-len(result.columns) // wide)
    figure = Figure(figsize=(3.9 * wide + 0.2, 2.7 * deep + 1.2), layout="constrained", dpi=160)
    panels = list(figure.subplots(deep, wide, squeeze=False).flat)
    for place, panel in enumerate(panels):
        if place >= len(result.columns):
            panel.set_visible(False)
            continue
        _draw_panel(panel, result, result.columns[place], strategies, axis)
        panel.set_ylabel("score, %" if place % wide == 0 else "", fontsize=8.5)
        panel.set_xlabel(_LABELS[axis] if place + wide >= len(result.columns) else "", fontsize=8.5)
    figure.suptitle(_title(result), fontsize=9.5, x=0.012, ha="left", fontweight="bold")
    _add_legend(figure, strategies)
    return figure


def save_figure(figure: Figure, path: Path, caption: str) -> list[Path]:
    """Writes `<path>.png`, `.svg` and the caption, also their description, as `.txt`; the SVG's text stays text.

    Returns:
        The pictures.

    Args:
        path: without an ending, or with one of the two.

    Raises:
        LookmError: the folder cannot be written to.
    """
    import matplotlib as mpl

    path = path.with_suffix("") if path.suffix in ENDINGS else path
    written = [path.with_name(path.name + ending) for ending in ENDINGS]
    kinds: list[dict[str, Any]] = [{"Description": caption}, {"Description": caption, "Date": None}]
    with writing(path.parent, "--output"), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": path.name}):
        for target, metadata in zip(written, kinds, strict=True):
            with replacing(target) as temporary:
                figure.savefig(temporary, format=target.suffix[1:], metadata=metadata)
        write_text(path.with_name(path.name + ".txt"), caption + "\n")
    return written


def caption(result: Reproduction) -> str:
    """What stands below the picture, in sentences."""
    sizes = {cell.n for (row, _), cell in result.cells.items() if row.is_full} or {c.n for c in result.cells.values()}
    few, many = min(sizes), max(sizes)
    samples = f"{few}" if few == many else f"{few} to {many}"
    bars = (
        "Bars: 95 % paired bootstrap interval of the difference from the full cache, drawn around the full cache's "
        "score; a bar that does not reach its line is a difference that excludes zero."
    )
    shown = [bars] if any(cell.interval for cell in result.cells.values()) else []
    head = f"{_title(result)}: {result.protocol} protocol, {samples} samples per panel."
    return " ".join([head, *shown, *result.notes])


def _place(row: Row, cell: Cell, axis: Axis) -> float:
    assert row.alpha1 is not None
    assert row.alpha2 is not None
    total = row.alpha1 + row.alpha2
    if axis == "split":
        return 100 * row.alpha1 / total
    return 100 * (cell.budget if axis == "realised" and cell.budget is not None else total)


def _title(result: Reproduction) -> str:
    name = result.paper.title if result.paper else result.experiment.name
    semantics = {row.semantics for row in result.experiment.rows if row.semantics}
    return " · ".join([name, result.label, *(f"semantics {one}" for one in semantics)])


def _add_legend(figure: Figure, strategies: Sequence[str]) -> None:
    """One legend below all panels, of what any of them shows."""
    from matplotlib.artist import Artist
    from matplotlib.lines import Line2D

    handles: dict[str, Artist] = {str(line.get_label()): line for axes in figure.axes for line in axes.get_lines()}
    if any(axes.collections for axes in figure.axes):
        handles["interval"] = Line2D([], [], color="#888888", alpha=0.5, marker="|", markersize=11, linestyle="none")
    shown = [label for label in ("full", *strategies, "chance", "interval") if label in handles]
    figure.legend(
        [handles[label] for label in shown],
        [_LEGEND.get(label, label) for label in shown],
        loc="outside lower center",
        ncols=5,
        frameon=False,
        fontsize=8,
    )


def _draw_panel(panel: Axes, result: Reproduction, column: Column, strategies: Sequence[str], axis: Axis) -> None:
    ticks: set[float] = set()
    for place, strategy in enumerate(strategies):
        points = curve_points(result, strategy, column, axis)
        if not points:
            continue
        style, ours = style_of(strategy), strategy == "tp_pmerge"
        shift = (place - (len(strategies) - 1) / 2) * _SHIFTS[axis]
        xs = [point.x + shift if axis == "split" else point.x * (1 + shift) for point in points]
        scores = [point.score for point in points]
        panel.plot(
            xs, scores, color=style.colour, marker=style.marker, markersize=4.5, linewidth=2 if ours else 1.2,
            label=strategy, zorder=4 if ours else 3, clip_on=False,
        )  # fmt: skip
        for x, point in zip(xs, points, strict=True):
            if point.low is not None and point.high is not None:
                panel.vlines(x, point.low, point.high, color=style.colour, alpha=0.35, linewidth=1.4, zorder=2)
        ticks |= {round(point.x, 1) for point in points}
    full = result.cells.get((result.full, column.name)) if result.full else None
    if full is not None:
        panel.axhline(100 * full.score, color="black", linewidth=1.2, linestyle=(0, (4, 2)), label="full", zorder=1)
    levels = [cell.chance for (_, name), cell in result.cells.items() if name == column.name]
    if levels and levels[0] is not None:
        panel.axhline(100 * levels[0], color="#999999", linewidth=1, linestyle=":", label="chance", zorder=1)
    panel.set_title(column.name, fontsize=9.5)
    low, high = panel.get_ylim()
    panel.set_ylim(max(low, 0), min(high, 100))
    _set_ticks(panel, ticks, axis)
    panel.tick_params(labelsize=8)
    panel.grid(axis="y", color="#dddddd", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def _set_ticks(panel: Axes, ticks: set[float], axis: Axis) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    if axis != "split":
        panel.set_xscale("log")
    left, right = panel.get_xlim()
    panel.set_xlim(left, min(right, 100 + (left < 0) * 5))
    if axis == "realised":
        ticks = {tick for tick in (0.5, 1, 2, 5, 10, 20, 40, 80) if left <= tick <= right}
    if ticks:
        panel.xaxis.set_major_locator(FixedLocator(sorted(ticks)))
        panel.xaxis.set_minor_locator(NullLocator())
        panel.set_xticks(sorted(ticks), [f"{tick:g}" for tick in sorted(ticks)])
