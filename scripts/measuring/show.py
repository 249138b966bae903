"""The parts' results as text tables and pictures."""

from collections.abc import Callable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from benchmarks.tables.table import Row as Line
from benchmarks.tables.table import Table, as_text

from .decode import BUDGETS, paper_rows
from .split import STAGES

Part = Mapping[str, Any]
Row = Mapping[str, Any]
Columns = dict[str, Callable[[Row], str]]


def spread(row: Row) -> str:
    """Median and, in brackets, the smallest and largest run, in milliseconds."""
    return f"{row['median_ms']:.2f} [{row['min_ms']:.2f}–{row['max_ms']:.2f}]"


def times(value: float | None) -> str:
    """A ratio, or a dash."""
    return "–" if value is None else f"{value:.2f} ×"


# Of each part: the columns that say which case it is, and those of what was measured.
TABLES: dict[str, tuple[Columns, Columns]] = {
    "decode": (
        {"prompt × batch": lambda row: f"{row['length']:,} × {row['batch']}{', graph' if row['graph'] else ''}",
         "budget": lambda row: f"{row['budget']:.0%}"},
        {"ms/token [runs]": spread, "of full": lambda row: times(row["times_full"]),
         "KV GiB": lambda row: f"{row['kv_bytes'] / 2**30:.3f}", "of floor": lambda row: times(row["times_floor"]),
         "tokens/s": lambda row: f"{row['tokens_per_second']:,.0f}"},
    ),
    "prefill": (
        {"variant": itemgetter("variant"), "tokens": lambda row: f"{row['length']:,}"},
        {"ms [runs]": spread, "of plain": lambda row: times(row["times_first"]),
         "peak MiB": lambda row: "–" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}",
         "of plain's": lambda row: times(row["peak_times_first"])},
    ),
    "split": (
        {"ms": itemgetter("strategy")},
        {stage: lambda row, stage=stage: f"{row[f'{stage}_ms']:.1f}" for stage in (*STAGES, "total")},  # type: ignore[misc]
    ),
    "sweep": (
        {"case": lambda row: f"{row['model']}, batch {row['batch']}", "way": lambda row: row.get("way", "")},
        {"tokens": lambda row: str(max(row["prompt_tokens"])), "ms [runs]": spread,
         "of full row": lambda row: times(row["times_first"]),
         "answers": lambda row: f"{row['answers_that_differ_from_single_runs']} of {row['answers']} differ"},
    ),
    "capacity": (
        {"budget": lambda row: f"{row['budget']:.0%}", "prompt": lambda row: f"{row['length']:,}",
         "memory GiB": lambda row: f"{row['memory_bytes'] / 2**30:.1f}", "batch": lambda row: f"{row['batch']:,}"},
        {"ms/step [runs]": spread, "tokens/s": lambda row: f"{row['tokens_per_second']:,.0f}",
         "of floor": lambda row: times(row["times_floor"])},
    ),
}  # fmt: skip


def text_of(part: Part) -> str:
    """A part as text: what, where, how, and its table."""
    machine = part["hardware"].get("accelerator") or part["hardware"]["processor"]
    case, measured = TABLES[part["part"]]
    lines = []
    for row in each_way(part["rows"]):
        nothing = [row.get("skipped", "")[:60], *[""] * (len(measured) - 1)]
        numbers = nothing if "skipped" in row else [cell(row) for cell in measured.values()]
        lines.append([*(cell(row) for cell in case.values()), *numbers])
    if part["part"] == "decode":
        lines += [
            ["paper (Table 4)", f"{row['budget']:.0%}", f"{row['decode_ms_per_token']:.2f}", times(row["times_full"]),
             f"{row['kv_gib']:.2f}", "–", f"on {row['hardware']}"]
            for row in paper_rows()
        ]  # fmt: skip
    title = (
        f"{part['title']} · {machine} · torch {part['versions'].get('torch')}, "
        f"transformers {part['versions'].get('transformers')}, {part['threads']} threads"
    )
    rows = tuple(Line(tuple(line)) for line in lines)
    table = Table("\n".join([title, *part["notes"]]), (*case, *measured), rows, text_columns=len(case))
    return as_text(table) + "\n"


def each_way(rows: list[Row]) -> list[Row]:
    """Rows of a sweep, one for each way to the eleven rows; others as they are."""
    return [
        {**row, "way": way, **measured}
        for row in rows
        for way, measured in (row["ways"].items() if "ways" in row else [("", {})])
    ]


def draw_decode(rows: list[Row], figure: Any) -> None:
    """Milliseconds a token over prompt length (one prompt) and over the batch."""
    usual = next((row["length"] for row in rows if row["batch"] > 1), None)
    for axes, over, chosen in zip(
        figure.subplots(1, 2),
        ("length", "batch"),
        ([row for row in rows if row["batch"] == 1], [row for row in rows if row["length"] == usual]),
        strict=True,
    ):
        for budget, graph in sorted({(row["budget"], row["graph"]) for row in rows}, reverse=True):
            line = [row for row in chosen if (row["budget"], row["graph"]) == (budget, graph)]
            points = sorted((row[over], row["median_ms"]) for row in line)
            label = f"{budget:.0%}{', graph' if graph else ''}"
            style: dict[str, Any] = {"color": f"C{BUDGETS.index(budget)}", "linestyle": "--" if graph else "-"}
            axes.plot([x for x, _ in points], [y for _, y in points], label=label, marker="o", **style)
        places = sorted({row[over] for row in chosen})
        axes.set(xscale="log", yscale="log", xlabel="prompt tokens" if over == "length" else "batch", ylabel="ms/step")
        axes.set_xticks(places, [f"{place:,}" for place in places], fontsize=8)
        axes.xaxis.minorticks_off()
        for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis("{x:g}")
        axes.set_title("one prompt" if over == "length" else f"batches of {usual or 0:,} tokens")
    figure.axes[0].legend(title="budget", frameon=False)


# Of each other part: the label of a bar, the lengths that are stacked in it, and what they are.
BARS: dict[str, tuple[Callable[[Row], str], dict[str, str], str]] = {
    "prefill": (lambda row: f"{row['variant']}, {row['length']:,}", {"times_first": ""}, "time by that of plain SDPA"),
    "split": (itemgetter("strategy"), {f"{stage}_ms": stage for stage in STAGES}, "ms for one prompt and its answer"),
    "sweep": (
        lambda row: f"{row['way']} · {row['model']}, {row['batch']} × {max(row['prompt_tokens'])}",
        {"times_first": ""},
        "time by that of the full-cache row alone",
    ),
    "capacity": (
        lambda row: f"{row['budget']:.0%}, batch {row['batch']:,}",
        {"tokens_per_second": ""},
        "tokens/s of the largest batch",
    ),
}


def draw_bars(part: str, rows: list[Row], figure: Any) -> None:
    """Horizontal bars, one a row, with their numbers; stacked where there are several stages."""
    label, stages, what = BARS[part]
    axes, names = figure.subplots(), [label(row) for row in rows]
    begins = [0.0] * len(rows)
    for place, (field, stage) in enumerate(stages.items()):
        widths = [max(0.0, row[field]) for row in rows]
        bars = axes.barh(names, widths, left=begins, label=stage, color=f"C{place}")
        begins = [begin + width for begin, width in zip(begins, widths, strict=True)]
    if len(stages) == 1:
        axes.bar_label(bars, [f"{width:,.2f}" if width < 100 else f"{width:,.0f}" for width in widths], padding=3)
        axes.margins(x=0.15)
    else:
        axes.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    axes.invert_yaxis()
    axes.set(xlabel=what)


def picture(part: Part, path: Path) -> bool:
    """Draw a part into a PNG; False where matplotlib is not installed or nothing was measured."""
    rows = [row for row in each_way(part["rows"]) if "skipped" not in row]
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    if not rows:
        return False
    height = 3.6 if part["part"] == "decode" else max(2.0, 0.9 + 0.3 * len(rows))
    figure = Figure(figsize=(9, height), layout="constrained")
    FigureCanvasAgg(figure)
    draw_decode(rows, figure) if part["part"] == "decode" else draw_bars(part["part"], rows, figure)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=150, format="png")
    temporary.replace(path)
    return True
