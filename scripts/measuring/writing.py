"""The parts' results as text tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .decode import paper_rows
from .split import STAGES

Part = Mapping[str, Any]
Row = Mapping[str, Any]


def aligned(head: Sequence[str], lines: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Columns of one width each, the first `left` ones to the left and the others to the right."""
    widths = [max(len(line[place]) for line in [head, *lines]) for place in range(len(head))]
    return [
        "  ".join(
            text.ljust(width) if place < left else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *lines]
    ]


def spread(row: Row) -> str:
    """Median and, in brackets, the smallest and largest run, in milliseconds."""
    return f"{row['median_ms']:.2f} [{row['min_ms']:.2f}–{row['max_ms']:.2f}]"


def times(value: float | None) -> str:
    """A ratio, or a dash."""
    return "–" if value is None else f"{value:.2f} ×"


def decode_table(part: Part) -> list[str]:
    """Decode steps, with the paper's row beneath."""
    lines = []
    for row in part["rows"]:
        name = f"{row['length']:,} × {row['batch']}{', graph' if row['graph'] else ''}"
        if "skipped" in row:
            lines.append([name, f"{row['budget']:.0%}", row["skipped"][:60], "", "", "", ""])
            continue
        lines.append(
            [name, f"{row['budget']:.0%}", spread(row), times(row["times_full"]), f"{row['kv_bytes'] / 2**30:.3f}",
             times(row["times_floor"]), f"{row['tokens_per_second']:,.0f}"]
        )  # fmt: skip
    head = ["prompt × batch", "budget", "ms/token [runs]", "of full", "KV GiB", "of floor", "tokens/s"]
    paper = [
        ["paper (Table 4)", f"{row['budget']:.0%}", f"{row['decode_ms_per_token']:.2f}", times(row["times_full"]),
         f"{row['kv_gib']:.2f}", "–", f"on {row['hardware']}"]
        for row in paper_rows()
    ]  # fmt: skip
    return aligned(head, [*lines, *paper])


def prefill_table(part: Part) -> list[str]:
    """Prefills beside the plain one."""
    lines = []
    for row in part["rows"]:
        if "skipped" in row:
            lines.append([row["variant"], row["skipped"][:60], "", "", ""])
            continue
        peak = "–" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}"
        lines.append([row["variant"], spread(row), times(row["times_first"]), peak, times(row["peak_times_first"])])
    return aligned(["variant", "ms [runs]", "of plain", "peak MiB", "of plain"], lines)


def split_table(part: Part) -> list[str]:
    """Stages of an answer, in milliseconds."""
    lines = [[row["strategy"], *(f"{row[f'{stage}_ms']:.1f}" for stage in (*STAGES, "total"))] for row in part["rows"]]
    return aligned(["ms", *STAGES, "total"], lines)


def sweep_table(part: Part) -> list[str]:
    """Ways to the eleven rows."""
    lines = []
    for row in part["rows"]:
        name = f"{row['model']}, batch {row['batch']}"
        if "skipped" in row:
            lines.append([name, row["skipped"][:60], "", "", ""])
            continue
        differ = f"{row['answers_that_differ_from_single_runs']} of {row['answers']} differ"
        for place, (way, measured) in enumerate(row["ways"].items()):
            label = f"{name}, {max(row['prompt_tokens'])} tokens" if place == 0 else ""
            lines.append([label, way, spread(measured), times(measured["times_first"]), differ if place == 1 else ""])
    return aligned(["case", "way", "ms [runs]", "of full row", "answers"], lines, left=2)


def capacity_table(part: Part) -> list[str]:
    """The largest batches."""
    lines = []
    for row in part["rows"]:
        fit = [f"{row['budget']:.0%}", f"{row['length']:,}", f"{row['memory_bytes'] / 2**30:.1f}", f"{row['batch']:,}"]
        if "skipped" in row:
            lines.append([*fit, row["skipped"][:60], "", ""])
        else:
            lines.append([*fit, spread(row), f"{row['tokens_per_second']:,.0f}", times(row["times_floor"])])
    head = ["budget", "prompt", "memory GiB", "batch", "ms/step [runs]", "tokens/s", "of floor"]
    return aligned(head, lines)


TABLES: dict[str, Callable[[Part], list[str]]] = {
    "decode": decode_table,
    "prefill": prefill_table,
    "split": split_table,
    "sweep": sweep_table,
    "capacity": capacity_table,
}


def text_of(part: Part) -> str:
    """A part as text: what, where, how, and its table."""
    machine = part["hardware"].get("accelerator") or part["hardware"]["processor"]
    lines = [
        f"{part['title']} · {machine} · torch {part['versions'].get('torch')}, "
        f"transformers {part['versions'].get('transformers')}, {part['threads']} threads",
        *part["notes"],
        "",
        *TABLES[part["part"]](part),
    ]
    return "\n".join(lines) + "\n"
