"""The parts' results as pictures."""

from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from .decode import BUDGETS
from .split import STAGES

Part = Mapping[str, Any]
COLOURS = dict(zip(BUDGETS, ("C0", "C1", "C2"), strict=True))


def draw_decode(part: Part, figure: Any) -> None:
    """Milliseconds a token over prompt length (one prompt) and over the batch."""
    left, right = figure.subplots(1, 2)
    rows = [row for row in part["rows"] if "skipped" not in row]
    usual = next((row["length"] for row in rows if row["batch"] > 1), None)
    for axes, over, chosen in (
        (left, "length", [row for row in rows if row["batch"] == 1]),
        (right, "batch", [row for row in rows if row["length"] == usual]),
    ):
        kinds = sorted({(row["budget"], row["graph"]) for row in rows}, reverse=True)
        for budget, graph in kinds:
            line = [row for row in chosen if (row["budget"], row["graph"]) == (budget, graph)]
            line.sort(key=itemgetter(over))
            axes.plot(
                [row[over] for row in line],
                [row["median_ms"] for row in line],
                label=f"{budget:.0%}{', graph' if graph else ''}",
                color=COLOURS[budget],
                linestyle="--" if graph else "-",
                marker="o",
            )
        axes.set(xscale="log", yscale="log", xlabel="prompt tokens" if over == "length" else "batch", ylabel="ms/step")
        places = sorted({row[over] for row in chosen})
        axes.set_xticks(places, [f"{place:,}" for place in places], fontsize=8)
        axes.xaxis.minorticks_off()
        for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis("{x:g}")
    left.set_title("one prompt")
    right.set_title("batches" if usual is None else f"batches of {usual:,} tokens")
    left.legend(title="budget", frameon=False)


def draw_prefill(part: Part, figure: Any) -> None:
    """Time by that of the plain prefill."""
    axes = figure.subplots()
    rows = [row for row in part["rows"] if "skipped" not in row]
    bars = axes.barh([row["variant"] for row in rows], [row["times_first"] for row in rows], color="C0")
    axes.bar_label(bars, fmt="%.2f ×", padding=3)
    axes.axvline(1, color="0.4", linewidth=0.8)
    axes.invert_yaxis()
    axes.set(xlabel="time of a prefill by that of plain SDPA")


def draw_split(part: Part, figure: Any) -> None:
    """Stages stacked."""
    axes = figure.subplots()
    names = [row["strategy"] for row in part["rows"]]
    begins = [0.0] * len(names)
    for place, stage in enumerate(STAGES):
        widths = [max(0.0, row[f"{stage}_ms"]) for row in part["rows"]]
        axes.barh(names, widths, left=begins, label=stage, color=f"C{place}")
        begins = [begin + width for begin, width in zip(begins, widths, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="ms for one prompt and its answer")
    axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))


def draw_sweep(part: Part, figure: Any) -> None:
    """Ways to the eleven rows, by the time of the full-cache row."""
    rows = [row for row in part["rows"] if "skipped" not in row]
    for place, (row, axes) in enumerate(
        zip(rows, figure.subplots(1, max(1, len(rows)), squeeze=False)[0], strict=False)
    ):
        ways = list(row["ways"])
        bars = axes.barh(ways, [row["ways"][way]["times_first"] for way in ways], color="C0")
        axes.bar_label(bars, fmt="%.2f ×", padding=3)
        axes.margins(x=0.25)
        axes.invert_yaxis()
        axes.set_title(f"{row['model']}\n{row['batch']} × {max(row['prompt_tokens'])} tokens", fontsize=9)
        if place:
            axes.set_yticklabels([])
    figure.supxlabel("time by that of the full-cache row alone", fontsize=9)


def draw_capacity(part: Part, figure: Any) -> None:
    """Tokens a second of the largest batch."""
    axes = figure.subplots()
    rows = [row for row in part["rows"] if "skipped" not in row]
    bars = axes.bar([f"{row['budget']:.0%}" for row in rows], [row["tokens_per_second"] for row in rows], color="C0")
    axes.bar_label(bars, [f"batch {row['batch']:,}" for row in rows], padding=3)
    axes.margins(y=0.15)
    axes.set(xlabel="budget", ylabel="tokens/s of the largest batch")


DRAWINGS: dict[str, Callable[[Part, Any], None]] = {
    "decode": draw_decode,
    "prefill": draw_prefill,
    "split": draw_split,
    "sweep": draw_sweep,
    "capacity": draw_capacity,
}


def picture(part: Part, path: Path) -> bool:
    """Draw a part into a PNG; False where matplotlib is not installed or nothing was measured."""
    if all("skipped" in row for row in part["rows"]):
        return False
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    DRAWINGS[part["part"]](part, figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=150, format="png")
    temporary.replace(path)
    return True
