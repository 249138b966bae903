"""Every method at equal bytes: its score over realised bytes, and with the question seen and unseen, as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.tables.frame import budget_text
from benchmarks.tables.matched import LOOKM, EqualBytes
from benchmarks.tables.styles import place_of, style_of
from lookm.errors import LookmError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINE = 0.16  # from one label to the next, in inches
SEEN, UNSEEN = 0.0, 1.0  # where their scores stand on the horizontal axis
_LEVEL: dict[str, Any] = {"fontsize": 7.5, "color": "#666666", "va": "bottom"}


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (cost, score) that no other beats, by rising cost.

    A point is beaten by one that costs no more and scores no less, and differs in one of the two.

    Example:
        >>> pareto_front([(1, 40), (2, 35), (3, 50)])
        [(1, 40), (3, 50)]
    """
    front: list[tuple[float, float]] = []
    for cost, score in sorted(set(points), key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def method_points(part: EqualBytes) -> dict[str, list[tuple[float, float]]]:
    """Variant → (bytes kept over those of the full cache, score), both in %, by rising bytes."""
    points: dict[str, list[tuple[float, float]]] = {}
    for run, cell in part.mean.items():
        if cell.budget is not None:
            points.setdefault(part.variants[run], []).append((100 * cell.budget, 100 * cell.score))
    return {variant: sorted(points[variant]) for variant in sorted(points, key=place_of)}


def draw_pareto(part: EqualBytes) -> Figure:
    """One panel: a line for each method through its budgets, named at its end, and the front behind them.

    The full cache is a level, so that the methods have the room.
    """
    from matplotlib.figure import Figure

    methods = method_points(part)
    full = methods.pop("full", [])
    figure = Figure(figsize=(9.5, max(5.0, 0.17 * len(methods) + 1.4)), layout="constrained", dpi=160)
    panel = figure.subplots()
    panel.set_xscale("log")
    front = pareto_front([point for points in methods.values() for point in points])
    costs, scores = ([*values] for values in zip(*front, strict=True))
    panel.plot(costs, scores, drawstyle="steps-post", color="#bbbbbb", linewidth=5, alpha=0.6, zorder=1)
    for variant, points in methods.items():
        style, ours = style_of(variant.partition(",")[0]), variant == LOOKM
        panel.plot(
            *zip(*points, strict=True), color=style.colour, marker=style.marker, markersize=4.5,
            linewidth=2.4 if ours else 1.0, zorder=4 if ours else 3, alpha=1.0 if ours else 0.85,
        )  # fmt: skip
    for _, score in full:
        panel.axhline(score, color="black", linewidth=1, linestyle=(0, (4, 2)), zorder=1)
        panel.text(0.004, score, f"full cache  {score:.1f}", transform=panel.get_yaxis_transform(), **_LEVEL)
    levels = {round(100 * cell.chance, 9) for cell in part.mean.values() if cell.chance is not None}
    for level in levels if len(levels) == 1 else ():
        panel.axhline(level, color="#999999", linewidth=1, linestyle=":", zorder=1)
        panel.text(0.004, level, "chance", transform=panel.get_yaxis_transform(), **_LEVEL)
    name_ends(panel, {variant: points[-1] for variant, points in methods.items()}, figure.get_figheight())
    ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100) if panel.get_xlim()[0] <= tick <= panel.get_xlim()[1]]
    panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.minorticks_off()
    panel.set_xlabel("bytes kept of the full cache, % (log scale)", fontsize=9)
    panel.set_ylabel(f"score, % ({part.columns[-1].name})", fontsize=9)
    panel.set_title(f"Score over bytes · {part.label}", fontsize=10, loc="left", fontweight="bold")
    panel.tick_params(labelsize=8.5)
    panel.grid(axis="y", color="#e4e4e4", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)
    return figure


def name_ends(panel: Axes, ends: Mapping[str, tuple[float, float]], inches: float, *, left: bool = False) -> None:
    """Variants' names and scores beside the panel, as near to the height of their points as the others' names allow.

    Args:
        panel: where their lines are; its limits must stand.
        ends: variant → its point (x, score).
        inches: height of the panel, about.
        left: of the panel, else right.
    """
    low, high = panel.get_ylim()
    ordered = sorted(ends, key=lambda variant: (ends[variant][1], variant))
    heights = spread([ends[variant][1] for variant in ordered], _LINE / inches * (high - low), low, high)
    for variant, height in zip(ordered, heights, strict=True):
        score, style = ends[variant][1], style_of(variant.partition(",")[0])
        panel.annotate(
            f"{variant}  {score:.1f}", ends[variant], xytext=(-0.03 if left else 1.03, height),
            textcoords=panel.get_yaxis_transform(), fontsize=7.5, color=style.colour, va="center",
            ha="right" if left else "left", fontweight="bold" if variant == LOOKM else "normal",
            arrowprops={
                "arrowstyle": "-", "color": style.colour, "linewidth": 0.5, "alpha": 0.5, "relpos": (float(left), 0.5)
            },
            annotation_clip=False,
        )  # fmt: skip


def spread(heights: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """Rising numbers moved as little as it takes for neighbours to be `step` apart, from low to high.

    Neighbours that are too near become a block of that distance around their mean; blocks that meet become one. Where
    there is no room for all, they begin at low.
    """
    blocks: list[list[float]] = []

    def bottom(block: Sequence[float]) -> float:
        size = (len(block) - 1) * step
        return max(low, min(high - size, sum(block) / len(block) - size / 2))

    for height in heights:
        blocks.append([height])
        while len(blocks) > 1 and bottom(blocks[-1]) - bottom(blocks[-2]) < len(blocks[-2]) * step - 1e-9:
            last = blocks.pop()
            blocks[-1] += last
    return [bottom(block) + place * step for block in blocks for place in range(len(block))]


def pareto_caption(part: EqualBytes) -> str:
    """What stands below the picture, in sentences."""
    return (
        f"Score over realised bytes, {part.label}: {part.protocol} protocol, {_samples(part)} samples a point. A "
        "line goes through the budgets of one method (`budget=`); its name and last score stand at its end. Grey: "
        "points that none beats at as many bytes or fewer, read off the same samples and without intervals, which "
        "`lookm table matched` has."
    )


def draw_asked(seen: EqualBytes, unseen: EqualBytes) -> Figure:
    """A panel for each budget that both hold: a line from the score with the question seen to that with it unseen.

    Raises:
        LookmError: the two have no budget in common.
    """
    from matplotlib.figure import Figure

    budgets = [budget for budget in seen.budgets if budget in unseen.budgets]
    if not budgets:
        raise LookmError("no budget has runs with question=seen and with question=unseen: `lookm sweep` both")
    slopes = {budget: slopes_at(budget, seen, unseen) for budget in budgets}
    height = max(4.5, 0.17 * max(map(len, slopes.values())) + 1.2)
    figure = Figure(figsize=(max(9.0, 5.2 * len(budgets)), height), layout="constrained", dpi=100)  # its title fits
    panels = figure.subplots(1, len(budgets), sharey=True, squeeze=False)[0]
    for panel, (budget, scores) in zip(panels, slopes.items(), strict=True):
        for variant, ends in scores.items():
            style, ours = style_of(variant.partition(",")[0]), variant == LOOKM
            panel.plot(
                (SEEN, UNSEEN), ends, color=style.colour, marker=style.marker, markersize=4,
                linewidth=2.4 if ours else 1.0, alpha=1.0 if ours else 0.85, zorder=4 if ours else 3,
            )  # fmt: skip
        panel.set_title(budget_text(0.0, 0.0, budget), fontsize=10, fontweight="bold")
        panel.set_xticks((SEEN, UNSEEN), ("question seen", "question unseen"))
        panel.set_xlim(-0.05, 1.05)
        panel.tick_params(labelsize=9, left=False, labelleft=False)
        panel.spines[["top", "right", "left"]].set_visible(False)
    for panel, scores in zip(panels, slopes.values(), strict=True):  # all have the same limits now
        name_ends(panel, {variant: (SEEN, ends[0]) for variant, ends in scores.items()}, height, left=True)
        name_ends(panel, {variant: (UNSEEN, ends[1]) for variant, ends in scores.items()}, height)
    figure.suptitle(f"Before and after the question is known · {seen.label} · scores in %", fontsize=10.5)
    return figure


def slopes_at(budget: float, seen: EqualBytes, unseen: EqualBytes) -> dict[str, tuple[float, float]]:
    """Variant → its scores in %, question seen and unseen; of what both have at equal bytes, and the full cache."""
    first, second = (
        {part.variants[run]: 100 * part.mean[run].score for run in part.equal_at(budget)} for part in (seen, unseen)
    )
    return {variant: (first[variant], second[variant]) for variant in sorted(first, key=place_of) if variant in second}


def asked_caption(seen: EqualBytes, unseen: EqualBytes) -> str:
    """What stands below the picture, in sentences."""
    return (
        f"Scores of every method at the same bytes, {seen.label}: {seen.protocol} protocol, "
        f"{_samples(seen, unseen)} samples a point, "
        "without intervals, which `lookm table matched --where question=…` has, and methods of other bytes with them. "
        "Left: the compression sees the question, the prompt's last words. Right: the context is compressed before its "
        "question is read."
    )


def _samples(*parts: EqualBytes) -> str:
    """How many samples a point is of."""
    sizes = {cell.n for part in parts for cell in part.mean.values()}
    return f"{min(sizes)}" if len(sizes) == 1 else f"{min(sizes)} to {max(sizes)}"
