"""Every method's score with the question seen by the compression, and unseen, at the same bytes: one slope each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.tables.frame import budget_text
from benchmarks.tables.matched import LOOKM, EqualBytes
from benchmarks.tables.pareto import name_ends
from benchmarks.tables.styles import place_of, style_of
from lookm.errors import LookmError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEN, UNSEEN = 0.0, 1.0  # where their scores stand on the horizontal axis


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
    figure = Figure(figsize=(5.2 * len(budgets), height), layout="constrained", dpi=130)
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
    """Variant → its scores in %, question seen and unseen; of those that both have, the full cache among them."""
    first, second = (
        {part.variants[run]: 100 * cell.score for run, cell in part.mean.items() if part.asked[run] in (None, budget)}
        for part in (seen, unseen)
    )
    return {variant: (first[variant], second[variant]) for variant in sorted(first, key=place_of) if variant in second}


def asked_caption(seen: EqualBytes, unseen: EqualBytes) -> str:
    """What stands below the picture, in sentences."""
    sizes = sorted({cell.n for part in (seen, unseen) for cell in part.mean.values()})
    samples = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return (
        f"Scores of every method at the same bytes, {seen.label}: {seen.protocol} protocol, {samples} samples a point, "
        "without intervals, which `lookm table matched --where question=…` has. Left: the compression sees the "
        "question, the last words of the prompt. Right: the context is compressed before its question is read."
    )
